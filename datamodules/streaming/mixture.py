"""How much of each source an epoch holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mixture:
    """Shares of several sources. By default an epoch holds every sample of every source exactly once.

    With weights, a temperature or a length, a source is read on from where the last epoch left it, pass after pass: within one pass each of
    its samples comes exactly once, and over many epochs no sample comes more than once more often than another of the same source.

    Args:
        weights: one for each source; need not add up to 1. None: in proportion to the sizes.
        temperature: shares in proportion to size ** (1 / temperature), at least 1: 1 keeps the sizes, large values make the sources equal
            (multilingual BERT, https://github.com/google-research/bert/blob/master/multilingual.md).
        samples_per_epoch: length of an epoch; None: the sizes of all sources together.

    Raises:
        ValueError: a setting outside its range, or weights together with a temperature.
    """

    weights: list[float] | None = None
    temperature: float = 1.0
    samples_per_epoch: int | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and (not self.weights or not all(0 < weight < float("inf") for weight in self.weights)):
            raise ValueError(f"mixture weights must be positive, got {self.weights}; leave a source out to not read it.")
        if not 1 <= self.temperature < float("inf"):
            raise ValueError(f"mixture temperature must be at least 1, got {self.temperature}.")
        if self.weights is not None and self.temperature != 1:
            raise ValueError("a mixture has either weights or a temperature, not both.")
        if self.samples_per_epoch is not None and self.samples_per_epoch < 1:
            raise ValueError(f"samples_per_epoch must be at least 1, got {self.samples_per_epoch}.")

    def counts(self, sizes: Sequence[int]) -> list[int]:
        """Return how many samples of each source an epoch holds.

        Args:
            sizes: number of samples of each source; sources without samples get none.

        Raises:
            ValueError: another number of weights than of sources.
        """
        if self.weights is not None and len(self.weights) != len(sizes):
            raise ValueError(f"the mixture has {len(self.weights)} weights for {len(sizes)} sources.")
        total = sum(sizes) if self.samples_per_epoch is None else self.samples_per_epoch
        given = np.asarray(sizes, dtype=np.float64) ** (1 / self.temperature) if self.weights is None else np.asarray(self.weights)
        shares = np.where(np.asarray(sizes) > 0, given, 0.0)
        if not shares.sum():
            return [0] * len(sizes)
        exact = shares / shares.sum() * total
        counts = np.floor(exact).astype(np.int64)
        rest = int(total - counts.sum())
        counts[np.argsort(-(exact - counts), kind="stable")[:rest]] += 1  # largest remainders
        return [int(count) for count in counts]
