"""Masks against masks, file by file: the same computation for models and for baselines, and none of the framework's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.segmentation.compose import CLASSES, IGNORE

NUM_CLASSES = 1 + len(CLASSES)


class Scores(NamedTuple):
    """Shares, over all pixels of all pictures.

    Args:
        mean_iou: of all classes, background included.
        object_iou: of all objects as one class.
        accuracy: of the pixels.
    """

    mean_iou: float
    object_iou: float
    accuracy: float


def pictures(folder: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield key, picture ``(h, w, 3)`` and mask ``(h, w)`` of the files of a split."""
    for path in sorted(folder.glob("*.jpg")):
        mask = np.asarray(Image.open(path.with_suffix(".mask.png")))
        yield path.stem, np.asarray(Image.open(path).convert("RGB")), mask


def confusion(truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Return how often each true class (rows) was called what (columns), pixels that count for nothing left out."""
    there = truth != IGNORE
    pairs = truth[there].astype(np.int64) * NUM_CLASSES + guess[there]
    return np.bincount(pairs, minlength=NUM_CLASSES**2).reshape(NUM_CLASSES, NUM_CLASSES)


def scores(pairs: np.ndarray) -> Scores:
    """Return the scores of a table of counts."""
    right = np.diag(pairs)
    iou = right / (pairs.sum(0) + pairs.sum(1) - right)
    objects = pairs[1:, 1:].sum()
    return Scores(float(np.nanmean(iou)), float(objects / (pairs.sum() - pairs[0, 0])), float(right.sum() / pairs.sum()))


def score_files(files: Path, predicted: Path) -> Scores:
    """Score the masks that ``multimodal predict`` wrote."""
    pairs = np.zeros((NUM_CLASSES, NUM_CLASSES), dtype=np.int64)
    for key, _, mask in pictures(files):
        pairs += confusion(mask, np.asarray(Image.open(predicted / f"{key}.png")))
    return scores(pairs)
