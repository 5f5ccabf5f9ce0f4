"""Labelled sounds in memory, and batches of them.

Letters in shapes: n recordings, f frames, m mel bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset

from multimodal.batch import Batch, Item, Sample, collate
from multimodal.tokenizers.audio import AudioTransform, SpectrogramTransform

MODALITY, LABEL = "audio", "label"
LATEST = 4
"""Frames that a view of training may leave out at the start."""
LOUDER = 2.0
"""How much a view of training may be louder or quieter, in the natural logarithm of its energy."""


class Sounds(NamedTuple):
    """All recordings.

    Args:
        spectrograms: ``(f, m)`` each.
        labels: ``(n,)`` int64, numbers of ``classes``.
        groups: ``(n,)`` names: a drum kit, a voice; recordings of one group are alike.
        classes: names.
    """

    spectrograms: list[Tensor]
    labels: np.ndarray
    groups: np.ndarray
    classes: Sequence[str]


def transform() -> SpectrogramTransform:
    """Return how a recording becomes a spectrogram: as in ``configs/transform/sounds.yaml``, but all of it."""
    return SpectrogramTransform(AudioTransform(seconds=None), pad=True)


def sample(sounds: Sounds, number: int, spectrogram: Tensor | None = None, seed: int = 0) -> Sample:
    """Return a recording as a sample.

    Args:
        sounds: all recordings.
        number: of the recording.
        spectrogram: a view of it; None: the whole.
        seed: of what is drawn about it on the device; each view needs one of its own.
    """
    item = Item(sounds.spectrograms[number] if spectrogram is None else spectrogram, ragged=True)
    return Sample(str(number), {MODALITY: item}, {LABEL: int(sounds.labels[number])}, seed)


def whole(sounds: Sounds, numbers: Sequence[int], batch_size: int = 64) -> Iterator[Batch]:
    """Yield recordings as they are evaluated, in order."""
    for start in range(0, len(numbers), batch_size):
        yield collate([sample(sounds, int(i)) for i in numbers[start : start + batch_size]])


class RandomBatches(IterableDataset):
    """Endless batches of views, a little louder or quieter and a little later; each class as often as it is.

    Args:
        sounds: all recordings.
        numbers: those to draw from.
        batch_size: recordings of a batch.
        seed: of the draws.
    """

    def __init__(self, sounds: Sounds, numbers: np.ndarray, batch_size: int, seed: int) -> None:
        self.sounds, self.numbers, self.batch_size, self.seed = sounds, numbers, batch_size, seed

    def __iter__(self) -> Iterator[Batch]:
        """Draw batches, pass after pass."""
        random, waiting = np.random.default_rng(self.seed), np.empty(0, dtype=np.int64)
        while True:
            while len(waiting) < self.batch_size:
                waiting = np.concatenate([waiting, random.permutation(self.numbers)])
            drawn, waiting = waiting[: self.batch_size], waiting[self.batch_size :]
            seeds = random.integers(2**62, size=len(drawn))
            yield collate(
                [sample(self.sounds, int(i), self._view(int(i), random), int(seed)) for i, seed in zip(drawn, seeds, strict=True)]
            )

    def _view(self, number: int, random: np.random.Generator) -> Tensor:
        spectrogram = self.sounds.spectrograms[number]
        first = int(random.integers(0, max(1, min(LATEST, len(spectrogram) - 16) + 1)))
        return spectrogram[first:] + float(random.uniform(-LOUDER, LOUDER))
