"""Tell dance types, hidden pitches and composers by an encoder: from scratch, and pretrained by plain and adversarial masking.

``python -m benchmarks.music.run [--tasks TASK ...] [--arms ARM ...] [--seeds 5]`` after ``python -m benchmarks.music.data`` and
``python -m benchmarks.music.baselines``. What is finished is not done again: runs are folders of ``runs/music``, results are lines of
``runs/music/results.jsonl``. Each training is a config that stands in its folder, and could be run by ``multimodal fit`` alone.

An adversarial step encodes each batch twice, once as it is and once with the hidden notes; so adversarial masking gets half the epochs, and
the encoder works on as many tokens.

Dances are told by fine-tuned encoders, and by a linear classifier of what encoders say that are frozen; composers by the latter alone, of
the encoders that fill in hidden pitches.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml

from benchmarks.music.baselines import COMPOSERS, DANCE, FOREST, LOGISTIC, PITCH, chosen, classifiers, told_classes, truth_of
from benchmarks.music.data import ROOT, TEST
from benchmarks.music.frozen import frozen_features
from benchmarks.music.results import is_done, print_table, write
from benchmarks.music.tasks import chorales, excerpts, rows_of
from multimodal.tokenizers.midi import read_score

HERE, RUNS = Path(__file__).parent, Path("runs/music")
SCRATCH, PLAIN, ADVERSARIAL = "from scratch", "plain masking", "adversarial masking"
ARMS = (SCRATCH, PLAIN, ADVERSARIAL)
TASKS = (DANCE, PITCH, COMPOSERS)
FROZEN = "{}, frozen"
UNTRAINED = "not trained"
CONFIGS = {DANCE: "dance", PITCH: "pitch"}
"""Tasks of fine-tuning -> the name of their recipes."""
READ_BY = {DANCE: DANCE, COMPOSERS: PITCH}
"""Tasks that are told from frozen encoders -> the task whose encoders these are."""
PASSES = {PLAIN: 1, ADVERSARIAL: 2}
"""How often a step encodes its batch."""
KEYS = (-2, -1, 0, 1, 2)
"""Views of a chorale, in semitones."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not done yet, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS), help="(default: all)")
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS), help="(default: all)")
    parser.add_argument("--seeds", type=int, default=5, help="of fine-tuning (default: %(default)s)")
    options = parser.parse_args(arguments)
    for task in options.tasks:
        for seed in range(options.seeds):
            for arm in options.arms:
                if task in CONFIGS and not is_done({"task": task, "method": arm, "seed": seed}):
                    evaluate(task, arm, seed)
                if task in READ_BY:
                    evaluate_frozen(task, arm, seed)
        print_table(task, truth_of(task), FOREST)


def evaluate(task: str, arm: str, seed: int) -> None:
    """Pretrain if need be, fine-tune, and write down what the test split is told to be."""
    pretrained = None if arm == SCRATCH else pretrain(task, arm)
    run = RUNS / f"{CONFIGS[task]}_{_slug(arm)}_{seed}"
    seconds = fit(recipe(task, pretrained), run, seed)
    told = told_dances(run) if task == DANCE else told_notes(run)
    write({"task": task, "method": arm, "seed": seed, "seconds": round(seconds)}, told, truth_of(task))


def evaluate_frozen(task: str, arm: str, seed: int) -> None:
    """Write down what excerpts are told to be by a linear classifier of frozen features; from scratch these are of new weights."""
    line = {"task": task, "method": FROZEN.format(UNTRAINED if arm == SCRATCH else arm), "seed": seed}
    if is_done(line) or (seed and arm != SCRATCH):  # which draws nothing
        return
    found = excerpts(ROOT, task)
    scores = [read_score((ROOT / row.path).read_bytes()) for row in rows_of(ROOT, task)]
    pretrained = pretrain(READ_BY[task], PLAIN if arm == SCRATCH else arm)
    features = frozen_features(pretrained, scores, untrained=seed if arm == SCRATCH else None)
    model, grid = classifiers()[LOGISTIC]
    settings = chosen(model, grid, features, found)
    write(line | {"settings": str(settings)}, told_classes(model, settings, seed, features, found), truth_of(task))


def pretrain(task: str, arm: str) -> Path:
    """Return the run of an encoder that was pretrained, now or before."""
    run = RUNS / f"{CONFIGS[task]}_{_slug(arm)}"
    config = _read(f"pretrain_{CONFIGS[task]}.yaml")
    config["trainer"]["max_epochs"] //= PASSES[arm]
    if arm == ADVERSARIAL:
        _modality(config)["masking"] = adversarial(_modality(config)["masking"])
    fit(config, run, seed=0)
    return run


def adversarial(plain: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a masking that learns, which hides as much as a plain one does, and the same fields."""
    masking, settings = _read("adversarial.yaml"), plain["init_args"]
    if "fields" in settings:
        masking["init_args"] |= {"fields": settings["fields"]} | settings["masking"]["init_args"]
    else:
        masking["init_args"] |= settings
    return masking


def recipe(task: str, pretrained: Path | None) -> dict[str, Any]:
    """Return the config of a fine-tuning: from the encoder of a run, or with new ones of its kind."""
    config = _read(f"finetune_{CONFIGS[task]}.yaml")
    settings, own = config["model"]["init_args"], _modality(config)
    if pretrained is None:
        new = _read(f"pretrain_{CONFIGS[task]}.yaml")
        settings["encoder"], own["embed"] = new["model"]["init_args"]["encoder"], _modality(new)["embed"]
        own.pop("head", None)
        settings.pop("layer_decay", None)
        return config
    for part in (settings["encoder"], own["embed"], *([own["head"]] if "head" in own else [])):
        part["init_args"]["run"] = str(pretrained)
    return config


def fit(config: dict[str, Any], run: Path, seed: int) -> float:
    """Train as the command line does, unless it is done; return the seconds that it took."""
    started = time.perf_counter()
    if not (run / "done").is_file():
        run.mkdir(parents=True, exist_ok=True)
        (run / "recipe.yaml").write_text(yaml.safe_dump(config))
        call = ["fit", "--config", str(run / "recipe.yaml"), "--run", str(run), "--seed_everything", str(seed)]
        begun = ["--ckpt_path", "last"] if (run / "checkpoints" / "last.ckpt").is_file() else []
        subprocess.run([sys.executable, "-m", "multimodal", *call, *begun], check=True)
        (run / "done").touch()
    return time.perf_counter() - started


def told_dances(run: Path) -> np.ndarray:
    """Return the classes that a fine-tuned encoder tells the tested excerpts to be."""
    predict = ["predict", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints/last.ckpt")]
    subprocess.run([sys.executable, "-m", "multimodal", *predict], check=True)
    found = excerpts(ROOT, DANCE)
    keys = (run / "predictions" / "label_ids.keys.txt").read_text().split()
    ids = dict(zip(keys, np.load(run / "predictions" / "label_ids.npy").tolist(), strict=True))
    return np.array([ids[key] for key, tested in zip(found.keys, found.test, strict=True) if tested])


def told_notes(run: Path) -> np.ndarray:
    """Return the pitches that a trained model tells for all notes of the tested chorales."""
    from benchmarks.music.pitches import told_pitches
    from multimodal.lightning_cli import load_run
    from multimodal.training import MaskedPretraining

    model = cast(MaskedPretraining, load_run(run)[0])
    return np.concatenate([told_pitches(model, score, KEYS) for _, score in chorales(ROOT, TEST)])


def _modality(config: dict[str, Any]) -> dict[str, Any]:
    (found,) = config["model"]["init_args"]["modalities"].values()
    return found["init_args"]


def _read(name: str) -> dict[str, Any]:
    return cast(dict[str, Any], yaml.safe_load((HERE / name).read_text()))


def _slug(name: str) -> str:
    return name.replace(" ", "_")


if __name__ == "__main__":
    main()
