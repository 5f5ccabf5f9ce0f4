"""The digits as shards for pretraining, and in memory for fine-tuning.

Letters in shapes: n images.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset

from benchmarks.demo.digits import write_digits
from multimodal.batch import Batch, Sample, collate
from multimodal.protocols import Transform

PER_CLASS = {"train": 400, "test": 100}
MODALITY = "image"


def make_shards(folder: Path) -> Path:
    """Write 4,000 digits to learn from and 1,000 to test on, as files and as shards; return the folder of the shards."""
    write_digits(folder / "digits", PER_CLASS)
    shards = folder / "shards"
    if not (shards / "index.json").is_file():
        command = [sys.executable, "-m", "multimodal", "shards", "write", str(folder / "digits"), "--to", str(shards), "--split", "folders"]
        subprocess.run(command, check=True)
    return shards


def load(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Return the images of a split, ``(n, 1, 28, 28)`` uint8, and their digits, ``(n,)`` int64."""
    files = sorted((folder / "digits" / split).glob("*/*.png"))
    images = np.stack([np.asarray(Image.open(file)) for file in files])
    return torch.from_numpy(images)[:, None], torch.tensor([int(file.parent.name) for file in files])


class RandomBatches(IterableDataset):
    """Endless batches of labelled images, drawn with replacement, each view drawn anew.

    Args:
        images: ``(n, 1, 28, 28)`` uint8.
        labels: ``(n,)`` int64.
        transform: makes the views.
        batch_size: images of a batch.
        seed: of the draws.
    """

    def __init__(self, images: Tensor, labels: Tensor, transform: Transform, batch_size: int, seed: int) -> None:
        self.images, self.labels, self.transform, self.batch_size, self.seed = images, labels, transform, batch_size, seed

    def __iter__(self) -> Iterator[Batch]:
        """Draw batches."""
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            drawn = torch.randint(len(self.images), (self.batch_size,), generator=generator).tolist()
            yield collate(
                [
                    Sample(str(i), {MODALITY: self.transform(self.images[i], generator, train=True)}, {"label": int(self.labels[i])}, i)
                    for i in drawn
                ]
            )


def whole(images: Tensor, labels: Tensor, transform: Transform, batch_size: int = 250) -> list[Batch]:
    """Return all images as batches, as they are evaluated."""
    generator = torch.Generator()
    samples = [
        Sample(str(i), {MODALITY: transform(image, generator, train=False)}, {"label": int(label)})
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    return [collate(samples[start : start + batch_size]) for start in range(0, len(samples), batch_size)]
