"""VideoBERT on films of digits, from pixels to answers: which digit, which way, and what is said of which film.

``python -m benchmarks.narrated_digits.run``: films, runs and shards come to data/narrated_digits and runs/narrated_digits, scores to
runs/narrated_digits/scores.json. What is finished is not done again, and training goes on where it was stopped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.narrated_digits.data import SAID, make_data
from benchmarks.narrated_digits.sentences import DIGITS, TEMPLATES, WAYS

DATA, RUNS, RECIPES = Path("data/narrated_digits"), Path("runs/narrated_digits"), Path("benchmarks/narrated_digits")
FILMS, FEATURES, IDS = (DATA / "shards" / name for name in ("films", "features", "ids"))
ENCODER, MODEL, CLUSTERS, WORDS, VIDEOBERT = (RUNS / name for name in ("encoder", "encoder_model", "clusters", "words", "videobert"))
RANKED, SCORES = RUNS / "ranked.jsonl", RUNS / "scores.json"
COLUMNS = ("digit", "way", "alignment", "text_to_video", "video_to_text")
BRANCHING, DEPTH = 12, 2
FINISHED = "finished"
"""A file that says that a run is."""


def main() -> None:
    """Run what is not done yet, then print the table of all scores."""
    make_data(DATA)
    for command, done in commands():
        if not done.exists():
            if command[0] == "fit" and (Path(command[4]) / "checkpoints/last.ckpt").is_file():
                command = [*command, "--ckpt_path", "last"]
            print("$ multimodal", *command, flush=True)
            subprocess.run([sys.executable, "-m", "multimodal", *command], check=True)
            done.touch()
    if not SCORES.is_file():
        SCORES.write_text(json.dumps(list(score()), indent=1) + "\n")
    print_table(json.loads(SCORES.read_text()))


def commands() -> list[tuple[list[str], Path]]:
    """Return what ``multimodal`` is run with, in order, each with what is there once it has run."""
    lists = {name: RUNS / f"{name}.txt" for name in ("digits", "ways")}
    RUNS.mkdir(parents=True, exist_ok=True)
    for path, words in zip(lists.values(), (DIGITS, WAYS), strict=True):
        path.write_text("\n".join(words) + "\n")
    templates = [part for template in TEMPLATES for part in ("--template", template)]
    words = [part for path in lists.values() for part in ("--words", str(path))]
    kept = ["export", str(ENCODER), "--format", "multimodal", "--to", str(MODEL)]
    tree = ["clips", "cluster", str(FEATURES), "--branching", str(BRANCHING), "--depth", str(DEPTH), "--to", str(CLUSTERS)]
    made = ["clips", "encode", str(FEATURES), "--tokenizer", str(CLUSTERS), "--to", str(IDS), "--keep-features"]
    vocabulary = ["--kind", "wordpiece", "--lower-case", "--vocab-size", "1000", "--to", str(WORDS)]
    return [
        (_fit("encoder", ENCODER), ENCODER / FINISHED),
        (kept, MODEL),
        (["clips", "features", str(FILMS), "--config", str(RECIPES / "clips.yaml"), "--to", str(FEATURES)], FEATURES / "index.json"),
        (tree, CLUSTERS / "clips.json"),
        (made, IDS / "index.json"),
        (["tokenizers", "train", str(DATA / "films" / SAID), *vocabulary], WORDS / "tokenizer.json"),
        (_fit("videobert", VIDEOBERT), VIDEOBERT / FINISHED),
        (["clips", "classify", str(VIDEOBERT), str(IDS), "--spans", *templates, *words, "--to", str(RANKED)], RANKED),
    ]


def _fit(recipe: str, run: Path) -> list[str]:
    return ["fit", "--config", str(RECIPES / f"{recipe}.yaml"), "--run", str(run)]


def score() -> Iterable[dict]:
    """Yield the scores of the test films."""
    from benchmarks.narrated_digits.moves import read
    from benchmarks.narrated_digits.scores import of_model, without_model
    from multimodal.clips.feature_stream import source_of_clips
    from multimodal.clips.film_model import FilmModel
    from multimodal.clips.films import stretches_of
    from multimodal.tokenizers.pretrained import load_tokenizer

    model = FilmModel.from_run(VIDEOBERT)
    stretches = [stretch for stretch, _ in stretches_of(source_of_clips(str(IDS)), "test", model.transform, spans=True)]
    train, test = (read(DATA / "films", IDS, split) for split in ("train", "test"))
    test = test.first_of([(stretch.key, stretch.start_s) for stretch in stretches])
    yield from without_model(train, test, load_tokenizer(str(CLUSTERS)).vocab_sizes[0])
    yield from of_model(model, RANKED, stretches, test)


def print_table(found: Sequence[dict]) -> None:
    """Print scores, a row for each method."""
    table = Table("", "digit", "way", "alignment", "R@1 text to film", "R@1 film to text")
    for method in dict.fromkeys(line["method"] for line in found):
        own = {line["task"]: f"{line['score']:.3f}" for line in found if line["method"] == method}
        table.add_row(method, *(own.get(task, "") for task in COLUMNS))
    Console().print(table)


if __name__ == "__main__":
    main()
