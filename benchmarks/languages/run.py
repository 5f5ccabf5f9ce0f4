"""Tell the language of the first 20 characters of a paragraph: character n-grams, an encoder from scratch, and the same pretrained.

``python -m benchmarks.languages.run FOLDER`` after ``python -m benchmarks.languages.data FOLDER``; with ``--model DIR`` (from ``multimodal
export RUN --format multimodal --to DIR``, see ``pretrain.yaml``) also from that model. Results are lines of ``FOLDER/results.jsonl``; what
is there is not run again, so that it can be stopped and go on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
SPANS = (1, 4)
STRENGTHS = (0.1, 0.3, 1.0)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of JSON lines; none where it is not there."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def texts_of(folder: Path, split: str) -> tuple[list[str], list[str]]:
    """Return beginnings and languages of a split."""
    lines = [line for line in read(folder / "beginnings.jsonl") if line["split"] == split]
    return [line["text"] for line in lines], [line["label"] for line in lines]


def score_trivial(folder: Path) -> dict[str, float]:
    """Return what the most frequent language gives."""
    (_, labels), (_, truth) = texts_of(folder, "train"), texts_of(folder, "test")
    (frequent, _), *_ = Counter(labels).most_common(1)
    return _scores(truth, [frequent] * len(truth))


def score_n_grams(folder: Path) -> dict[str, float]:
    """Return what a linear support vector machine on character n-grams gives; its strength is chosen on the validation split."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    (texts, labels), (tried, known), (new, truth) = (texts_of(folder, split) for split in ("train", "val", "test"))
    counts = TfidfVectorizer(analyzer="char_wb", ngram_range=SPANS, sublinear_tf=True, lowercase=False)
    features = counts.fit_transform(texts)
    models = [LinearSVC(C=strength).fit(features, labels) for strength in STRENGTHS]
    best = max(models, key=lambda model: model.score(counts.transform(tried), known))
    return _scores(truth, list(best.predict(counts.transform(new)))) | {"C": best.C}


def _scores(truth: Sequence[str], guesses: Sequence[str]) -> dict[str, float]:
    from sklearn.metrics import f1_score

    same = sum(guess == label for guess, label in zip(guesses, truth, strict=True))
    return {"accuracy": same / len(truth), "macro_f1": float(f1_score(truth, guesses, average="macro", zero_division=0))}


def recipe(folder: Path, model: str | None, epochs: int) -> dict[str, Any]:
    """Return the config of a fine-tuning: from a model, or with the encoder and embedding of ``pretrain.yaml`` from scratch."""
    config = yaml.safe_load((HERE / "finetune.yaml").read_text())
    settings = config["model"]["init_args"]
    ((_, data),) = settings["modalities"].items()
    if model is None:
        new = yaml.safe_load((HERE / "pretrain.yaml").read_text())["model"]["init_args"]
        settings["encoder"] = new["encoder"]
        ((_, pretraining),) = new["modalities"].items()
        data["init_args"]["embed"] = pretraining["init_args"]["embed"]
    else:
        settings["encoder"]["init_args"]["folder"] = data["init_args"]["embed"]["init_args"]["folder"] = model
    config["data"]["init_args"]["shards"] = str(folder / "beginnings")
    config["trainer"]["max_epochs"] = epochs
    return dict(config)


def train_and_score(folder: Path, model: str | None, epochs: int, seed: int) -> dict[str, float]:
    """Fine-tune as the command line does, and return the scores of the test split."""
    run = folder / "runs" / f"{'scratch' if model is None else 'pretrained'}_{epochs}_{seed}"
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe(folder, model, epochs)))
    started = time.perf_counter()
    begun = ["--ckpt_path", "last"] if (run / "run/checkpoints/last.ckpt").is_file() else []
    _call("fit", "--config", str(run / "recipe.yaml"), "--run", str(run / "run"), "--seed_everything", str(seed), *begun)
    seconds = time.perf_counter() - started
    _call("test", "--config", str(run / "run/config.yaml"), "--ckpt_path", "last")
    found = json.loads((run / "run/test.json").read_text())
    return {"accuracy": found["test/accuracy"], "macro_f1": found["test/macro_f1"], "seconds": round(seconds)}


def _call(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "multimodal", *arguments], check=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not done yet, then print the table of all results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of benchmarks.languages.data")
    parser.add_argument("--model", help="folder of a pretrained model")
    parser.add_argument("--epochs", type=int, default=8, help="of fine-tuning (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each kind (default: %(default)s)")
    options = parser.parse_args(arguments)
    results = options.folder / "results.jsonl"
    for wanted in _wanted(options):
        if not any(wanted.items() <= line.items() for line in read(results)):
            line = wanted | _score(options.folder, wanted)
            with results.open("a") as file:
                file.write(json.dumps(line) + "\n")
    print_table(read(results))


def _wanted(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what is to be run: a name, and for encoders what they start from, epochs and seed."""
    starts = [("from scratch", None), *([("pretrained", options.model)] if options.model else [])]
    runs = [{"how": how, "model": model, "epochs": options.epochs, "seed": seed} for seed in range(options.seeds) for how, model in starts]
    return [{"how": "most frequent language"}, {"how": "character n-grams"}, *runs]


def _score(folder: Path, wanted: dict[str, Any]) -> dict[str, float]:
    match wanted["how"]:
        case "most frequent language":
            return score_trivial(folder)
        case "character n-grams":
            return score_n_grams(folder)
        case _:
            return train_and_score(folder, wanted["model"], wanted["epochs"], wanted["seed"])


def print_table(lines: Sequence[dict[str, Any]]) -> None:
    """Print accuracy and macro F1 of the test split, a row for each run."""
    table = Table("", "model", "epochs", "seed", "accuracy", "macro F1", "s")
    for line in lines:
        said = [str(line.get(name) if line.get(name) is not None else "") for name in ("how", "model", "epochs", "seed")]
        table.add_row(*said, f"{line['accuracy']:.3f}", f"{line['macro_f1']:.3f}", str(line.get("seconds", "")))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
