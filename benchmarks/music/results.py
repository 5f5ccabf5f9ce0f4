"""What each method told, line by line, and the tables made of it.

Letters in shapes: s seeds, x things that were told.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.metrics import f1_score

RESULTS = Path("runs/music/results.jsonl")
DRAWS = 2000
"""Of what was tested, for the spread of a score."""


class Truth(NamedTuple):
    """What is to be told.

    Args:
        labels: ``(x,)``, the truth.
        groups: ``(x,)``, what is drawn together for the spread: the pieces of notes.
        with_f1: whether macro F1 is a score.
    """

    labels: np.ndarray
    groups: np.ndarray
    with_f1: bool


def is_done(line: dict[str, Any]) -> bool:
    """Return whether there is a result with these entries."""
    return any(line.items() <= done.items() for done in results())


def results() -> list[dict[str, Any]]:
    """Return what is done."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def write(line: dict[str, Any], told: np.ndarray, truth: Truth) -> None:
    """Write a result down, and say its score."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(line | {"told": told.tolist()}) + "\n")
    print(f"{line['task']}: {line['method']}, seed {line['seed']}: {(told == truth.labels).mean():.3f}", flush=True)


def print_table(task: str, truth: Truth, base: str) -> None:
    """Print the scores of each method, means over the seeds, and what they are above those of another method."""
    found: dict[str, list[np.ndarray]] = {}
    for line in results():
        if line["task"] == task:
            found.setdefault(line["method"], []).append(np.array(line["told"]))
    columns = ["method", "seeds", "accuracy", "lowest, highest", *(["macro F1"] if truth.with_f1 else []), f"better than {base} by"]
    table = Table(*columns, title=f"{task}: {len(truth.labels):,} told", title_justify="left")
    for method, told in found.items():
        scores = [float((x == truth.labels).mean()) for x in told]
        cells = [method, str(len(told)), f"{np.mean(scores):.3f}", f"{min(scores):.3f}, {max(scores):.3f}"]
        if truth.with_f1:
            cells.append(f"{np.mean([f1_score(truth.labels, x, average='macro') for x in told]):.3f}")
        table.add_row(*cells, better(truth, told, found[base]) if base in found and method != base else "")
    Console(width=150).print(table)


def better(truth: Truth, told: Sequence[np.ndarray], base: Sequence[np.ndarray]) -> str:
    """Return the difference in accuracy with its standard error, over draws of the groups, each with all of its seeds."""
    gain = np.mean([x == truth.labels for x in told], 0) - np.mean([x == truth.labels for x in base], 0)
    _, group = np.unique(truth.groups, return_inverse=True)
    sums, counts = np.bincount(group, gain), np.bincount(group)
    random = np.random.default_rng(0)
    drawn = random.integers(len(sums), size=(DRAWS, len(sums)))
    return f"{gain.mean():+.3f} ± {np.std(sums[drawn].sum(1) / counts[drawn].sum(1)):.3f}"
