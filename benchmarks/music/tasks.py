"""The tasks of music in memory.

Letters in shapes: x excerpts, n notes.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.music.data import TEST, Row
from multimodal.tokenizers.midi.score import Column, Score, read_score


class Excerpts(NamedTuple):
    """Labelled excerpts, all of as many notes.

    Args:
        keys: of the samples.
        notes: ``(x, n, 3)`` start, pitch, duration.
        labels: ``(x,)``, numbers of ``classes``.
        test: ``(x,)`` bool, True where tested.
        classes: names, sorted.
    """

    keys: Sequence[str]
    notes: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    classes: Sequence[str]


def rows_of(root: Path, task: str) -> list[Row]:
    """Return the samples of a task, as ``benchmarks.music.data`` wrote them.

    Raises:
        SystemExit: they were not written.
    """
    table = root / f"{task}.csv"
    if not table.is_file():
        raise SystemExit(f"error: no {table}: run python -m benchmarks.music.data first.")
    with table.open(newline="") as file:
        return [Row(**{"label": ""} | row) for row in csv.DictReader(file)]


def excerpts(root: Path, task: str) -> Excerpts:
    """Return the excerpts of a task."""
    rows = rows_of(root, task)
    classes = sorted({row.label for row in rows})
    columns = [Column.START, Column.PITCH, Column.DURATION]
    notes = np.stack([read_score((root / row.path).read_bytes()).notes[:, columns].numpy() for row in rows])
    labels, test = np.array([classes.index(row.label) for row in rows]), np.array([row.split == TEST for row in rows])
    return Excerpts([row.key for row in rows], notes, labels, test, classes)


def chorales(root: Path, split: str, task: str = "chorales") -> list[tuple[str, Score]]:
    """Return names and scores of the chorales of a split."""
    return [(row.key, read_score((root / row.path).read_bytes())) for row in rows_of(root, task) if row.split == split]
