"""Tell spoken letters of voices and microphones that were not learned from, and beside it the same inside one package.

``python -m benchmarks.letters.run [--model FOLDER ...] [--tasks TASK ...] [--seeds 3]``; data come to data/sounds/packages_letters. A
model is a folder that ``multimodal export --format multimodal`` or ``multimodal tokenizers iterate`` wrote. What is finished is not done
again: results are lines of runs/letters/results.jsonl, so the comparison can be stopped and go on, or be shared by processes. A model
pretrained on ``benchmarks.drums.data`` has heard the prompts that are told here, without labels.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.letters import data
from benchmarks.letters.baselines import cepstra, grid_features, nearest, spectrum_features
from benchmarks.letters.data import Letter
from benchmarks.letters.sounds import load
from benchmarks.letters.tasks import TASKS, labels, split
from benchmarks.sound_classification.methods import STEPS, fine_tuned, machine
from benchmarks.sound_classification.sounds import Sounds

RESULTS = Path("runs/letters/results.jsonl")
COMMONEST, SPECTRUM, SCRATCH = "most frequent class", "spectrum, SVM", "from scratch"
DRAWS = 2000
"""Of the recordings, for the spread of a difference."""
Method = Callable[[Sounds, np.ndarray, np.ndarray, int], np.ndarray]
"""Sounds, numbers of those to learn from, numbers of those to tell, seed -> what they are told to be."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not done yet, then print the tables of all tasks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="*", type=Path, default=[], help="folders of pretrained models")
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS), help="(default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="of fine-tuning, and of splits inside one package (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="of fine-tuning (default: %(default)s)")
    options = parser.parse_args(arguments)
    for folder in options.model:
        if not (folder / "config.json").is_file():
            parser.error(f"no model in {folder}: multimodal export --format multimodal writes one.")
    known = data.main()
    sounds = load(known)
    for seed in range(options.seeds):
        for name, method in methods(sounds, options.model, options.steps).items():
            for task in options.tasks:
                evaluate(task, name, method, known, sounds, seed, options.steps)
    for task in options.tasks:
        print_table(task, known, [line for line in results() if line["task"] == task and line["steps"] == options.steps])


def methods(sounds: Sounds, models: Sequence[Path], steps: int) -> dict[str, Method]:
    """Return all methods by name."""
    coefficients = cepstra(sounds)
    found: dict[str, Method] = {
        COMMONEST: lambda x, train, test, _: np.full(len(test), np.bincount(x.labels[train]).argmax()),
        SPECTRUM: _by_machine(spectrum_features(sounds)),
        "nearest, time warping": lambda x, train, test, _: nearest(coefficients, x.labels, train, test),
    }
    for model in models:
        found[f"{model}, frozen, SVM"] = _by_machine(grid_features(model, sounds))
    for name, folder in {SCRATCH: None, **{str(model): model for model in models}}.items():
        found[name] = lambda x, train, test, seed, folder=folder: fine_tuned(folder, x, train, test, seed, steps)
    return found


def _by_machine(features: np.ndarray) -> Method:
    return lambda x, train, test, _: machine(features, x.labels, train, test)


def evaluate(task: str, name: str, method: Method, known: Sequence[Letter], sounds: Sounds, seed: int, steps: int) -> None:
    """Tell the recordings of one split, and write down what they were told to be, unless it is done."""
    line = {"task": task, "method": name, "seed": seed, "steps": steps}
    if any(line.items() <= done.items() for done in results()):
        return
    own = sounds._replace(labels=labels(TASKS[task], known), classes=TASKS[task].classes)
    train, test = split(TASKS[task], known, seed)
    told = method(own, train, test, seed)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps({**line, "learned": len(train), "tested": test.tolist(), "told": told.tolist()}) + "\n")
    print(f"{task}: {name}, seed {seed}: {(told == own.labels[test]).mean():.3f}", flush=True)


def results() -> list[dict]:
    """Return what is done."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def print_table(task: str, known: Sequence[Letter], found: Sequence[dict]) -> None:
    """Print accuracy, mean over the seeds, and what it is above the support vector machine's."""
    truth = labels(TASKS[task], known)
    title = task if TASKS[task].across else f"{task}: a warning, the same voices are learned from and told"
    if found:
        title += f"; {found[0]['learned']} sounds learned from, {len(found[0]['tested'])} told"
    table = Table(
        "method", "seeds", "accuracy", "lowest, highest", "better than the SVM of the spectrum by", title=title, title_justify="left"
    )
    right = {name: _right([line for line in found if line["method"] == name], truth) for name in dict.fromkeys(x["method"] for x in found)}
    for name, rows in right.items():
        scores = np.nanmean(rows, 1)
        better = "" if SPECTRUM not in right or name == SPECTRUM else _better(rows, right[SPECTRUM])
        table.add_row(name, str(len(rows)), f"{scores.mean():.3f}", f"{scores.min():.3f}, {scores.max():.3f}", better)
    Console(width=160).print(table)


def _right(lines: Sequence[dict], truth: np.ndarray) -> np.ndarray:
    """Return, of each seed and recording, whether it was told (1 or 0); nan: it was not tested."""
    rows = np.full((len(lines), len(truth)), np.nan)
    for row, line in zip(rows, lines, strict=True):
        row[line["tested"]] = np.array(line["told"]) == truth[line["tested"]]
    return rows


def _better(rows: np.ndarray, base: np.ndarray) -> str:
    """Return the difference in accuracy with its standard error, over draws of the tested recordings, each with all of its seeds."""
    count = min(len(rows), len(base))  # as many seeds as both have: splits inside one package differ by seed
    gain = rows[:count] - base[:count]
    tested = np.flatnonzero(~np.isnan(gain).all(0))
    random = np.random.default_rng(0)
    draws = [np.nanmean(gain[:, random.choice(tested, len(tested))]) for _ in range(DRAWS)]
    return f"{np.nanmean(gain):+.3f} ± {np.std(draws):.3f}"


if __name__ == "__main__":
    main()
