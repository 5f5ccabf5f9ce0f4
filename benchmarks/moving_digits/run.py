"""Which digit drifts, and where to: an encoder pretrained on films without labels beside one from scratch, with few labels and many.

``python -m benchmarks.moving_digits.run [--labels 300 1000 3000] [--seeds 1]``; films and runs come to data/moving_digits and
runs/moving_digits. What is finished is not done again: results are lines of runs/moving_digits/results.jsonl, so the comparison can be
stopped and go on, or be shared by processes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.moving_digits.baselines import changes, moves, one_picture
from benchmarks.moving_digits.data import TASKS, load, make_films
from benchmarks.moving_digits.fine_tune import SETTINGS, accuracy

DATA, RUNS = Path("data/moving_digits"), Path("runs/moving_digits")
RESULTS = RUNS / "results.jsonl"
MODEL = RUNS / "model"
METHODS = {"pretrained": MODEL, "from scratch": None}


def main() -> None:
    """Run what is not done yet, then print the table of all results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.moving_digits.run", description="Moving digits: which, and where to.")
    parser.add_argument("--labels", type=int, nargs="+", choices=SETTINGS, default=list(SETTINGS), help="numbers of labelled films")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each")
    arguments = parser.parse_args()
    make_films(DATA)
    for labels in arguments.labels:
        baselines(labels)
    pretrain()
    for labels in arguments.labels:
        for task in TASKS:
            for method in METHODS:
                for seed in range(arguments.seeds):
                    fine_tune(method, task, labels, seed)
    print_table(results())


def pretrain() -> None:
    """Train an encoder on the films without labels, and save it as ``runs/moving_digits/model``."""
    if MODEL.is_dir():
        return
    run = RUNS / "pretrain"
    for arguments in (
        ["fit", "--config", "configs/pretrain/video.yaml", "--run", str(run)],
        ["export", str(run), "--format", "multimodal", "--to", str(MODEL)],
    ):
        print("$ multimodal", *arguments, flush=True)
        subprocess.run([sys.executable, "-m", "multimodal", *arguments], check=True)


def baselines(labels: int) -> None:
    """Score what needs no network, and write the results."""
    if _done(method="forest on one picture", labels=labels):
        return
    (train, told), (test, truth) = (load(DATA, split) for split in ("train", "test"))
    train_clips, test_clips = train[:labels, :, 0].numpy(), test[:, :, 0].numpy()
    digits, true_digits = told["digit"][:labels].numpy(), truth["digit"].numpy()
    found = {
        ("forest on one picture", "digit"): np.mean(one_picture(train_clips, digits, test_clips) == true_digits),
        ("forest on changes", "digit"): np.mean(changes(train_clips, digits, test_clips) == true_digits),
        ("where changes move, nothing learned", "direction"): np.mean(moves(test_clips) == truth["direction"].numpy()),
    }
    for (method, task), score in reversed(found.items()):  # the one that is looked for last, as an interruption leaves none out
        _write({"method": method, "task": task, "labels": labels, "seed": 0, "accuracy": float(score)})


def fine_tune(method: str, task: str, labels: int, seed: int) -> None:
    """Fine-tune once, and write the result."""
    if _done(method=method, task=task, labels=labels, seed=seed):
        return
    score, seconds = accuracy(METHODS[method], DATA, task, labels, seed)
    _write({"method": method, "task": task, "labels": labels, "seed": seed, "accuracy": score, "seconds": round(seconds)})


def results() -> list[dict]:
    """Return what is done."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def print_table(found: Sequence[dict]) -> None:
    """Print the mean accuracy over the seeds, and with several their standard deviation."""
    columns = [(task, labels) for task in TASKS for labels in sorted({line["labels"] for line in found})]
    table = Table("method", *(f"{task}, {labels} labels" for task, labels in columns))
    for method in dict.fromkeys(line["method"] for line in found):
        own = [[x["accuracy"] for x in found if (x["method"], x["task"], x["labels"]) == (method, *column)] for column in columns]
        table.add_row(method, *map(_cell, own))
    Console().print(table)


def _cell(scores: Sequence[float]) -> str:
    if not scores:
        return ""
    spread = f" ± {statistics.stdev(scores):.3f} ({len(scores)})" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.3f}{spread}"


def _done(**what: object) -> bool:
    return any(what.items() <= line.items() for line in results())


def _write(line: dict) -> None:
    RUNS.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


if __name__ == "__main__":
    main()
