"""The films as files, as shards for the commands, and in memory for fine-tuning.

Letters in shapes: n films, f frames, s side.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from benchmarks.demo.digits import Counts, made_once
from benchmarks.moving_digits.films import DIRECTIONS, Move, digit_images, make_frames, write_film
from multimodal.batch import Batch, Item, Sample, collate
from multimodal.tokenizers.video import VideoTransform

NUM_FRAMES, SIZE = 8, 32
UNLABELLED, LABELLED = {"train": 8000, "val": 200}, {"train": 3000, "test": 1000}
"""Split -> number of films."""
SEEDS = {"unlabelled": 0, "labelled": 1}
TASKS = {"digit": 10, "direction": 8}
"""What is to be told -> number of classes."""
TABLE = "films.csv"
MODALITY = "video"
MOST_SHIFT = 2


def make_films(folder: Path) -> None:
    """Write ``folder/unlabelled`` and ``folder/labelled``, and shards of both: of the labelled films one for each task."""
    for kind, counts in (("unlabelled", UNLABELLED), ("labelled", LABELLED)):
        settings = {"what": f"moving digits, {kind}", "version": 1, "counts": counts}
        made_once(folder / kind, settings, partial(_write, counts, SEEDS[kind]))
    write_shards(folder / "unlabelled", folder / "shards/unlabelled")
    for task in TASKS:
        write_shards(folder / "labelled", folder / "shards" / task, "--label-column", task)


def write_shards(films: Path, shards: Path, *options: str) -> None:
    """Write shards of the films in a table, where there are none."""
    if not (shards / "index.json").is_file():
        command = ["shards", "write", str(films / TABLE), "--to", str(shards), "--split-column", "split", *options]
        subprocess.run([sys.executable, "-m", "multimodal", *command], check=True)


def _write(counts: dict[str, int], seed: int, folder: Path) -> Counts:
    random, rows = np.random.default_rng(seed), []
    for split, count in counts.items():
        images, labels = digit_images("test" if split == "test" else "train")
        order = [random.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
        (folder / split).mkdir(parents=True)
        for number in range(count):
            digit, direction = number % 10, DIRECTIONS[number // 10 % 8]
            own = order[digit]
            frames = make_frames(images[own[number // 10 % len(own)]], [Move(direction, NUM_FRAMES)], images, random)
            path = f"{split}/{number:05d}.mp4"
            write_film(frames, folder / path)
            rows.append((path, split, digit, direction))
    with (folder / TABLE).open("w", newline="") as file:
        csv.writer(file).writerows([("film", "split", "digit", "direction"), *rows])
    return {split: {"films": count} for split, count in counts.items()}


def film_transform() -> VideoTransform:
    """Return what makes clips of these films: whole, grey, never mirrored."""
    return VideoTransform(SIZE, NUM_FRAMES, seconds=1.0, flip=0.0, channels=1)


def load(folder: Path, split: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the labelled films of a split, ``(n, f, 1, s, s)`` uint8, and task -> classes ``(n,)``."""
    with (folder / "labelled" / TABLE).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    transform, generator = film_transform(), torch.Generator()
    files = [(folder / "labelled" / row["film"]).read_bytes() for row in rows]
    clips = torch.stack([transform(transform.decode(data), generator, train=False).values for data in files])
    digits = torch.tensor([int(row["digit"]) for row in rows])
    return clips, {"digit": digits, "direction": torch.tensor([DIRECTIONS.index(row["direction"]) for row in rows])}


class RandomBatches(IterableDataset):
    """Endless batches of labelled clips, drawn with replacement, each moved by a few pixels.

    Args:
        clips: ``(n, f, 1, s, s)`` uint8.
        labels: ``(n,)`` int64.
        batch_size: clips of a batch.
        seed: of the draws.
    """

    def __init__(self, clips: Tensor, labels: Tensor, batch_size: int, seed: int) -> None:
        self.clips, self.labels, self.batch_size, self.seed = clips, labels, batch_size, seed

    def __iter__(self) -> Iterator[Batch]:
        """Draw batches."""
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            drawn = torch.randint(len(self.clips), (self.batch_size,), generator=generator).tolist()
            yield collate([_sample(i, moved(self.clips[i], generator), self.labels[i]) for i in drawn])


def moved(clip: Tensor, generator: torch.Generator) -> Tensor:
    """Return a clip moved by up to ``MOST_SHIFT`` pixels along each axis; what comes in is black."""
    down, right = torch.randint(2 * MOST_SHIFT + 1, (2,), generator=generator).tolist()
    padded = torch.nn.functional.pad(clip, (MOST_SHIFT,) * 4)
    return padded[..., down : down + clip.shape[-2], right : right + clip.shape[-1]].contiguous()


def whole(clips: Tensor, labels: Tensor, batch_size: int = 250) -> list[Batch]:
    """Return all clips as batches, as they are evaluated."""
    samples = [_sample(i, clip, label) for i, (clip, label) in enumerate(zip(clips, labels, strict=True))]
    return [collate(samples[start : start + batch_size]) for start in range(0, len(samples), batch_size)]


def _sample(number: int, clip: Tensor, label: Tensor) -> Sample:
    return Sample(str(number), {MODALITY: Item(clip)}, {"label": int(label)}, number)
