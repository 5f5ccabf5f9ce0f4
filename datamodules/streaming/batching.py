"""Cut the order of an epoch into steps, and each step into the batches of the ranks.

A step takes consecutive places of the order, a rank consecutive places of the step. Every place is in exactly one batch, and all ranks have
the same number of batches in every epoch: nothing is dropped, nothing is repeated, and no rank waits for another that has ended.

Letters: s samples of an epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np


class Batching(ABC):
    """How an epoch is cut.

    Args:
        num_samples: of an epoch.
        world_size: number of ranks, at least 1.
    """

    def __init__(self, num_samples: int, world_size: int) -> None:
        if world_size < 1:
            raise ValueError(f"world_size must be at least 1, got {world_size}.")
        self.num_samples, self.world_size = num_samples, world_size

    @property
    @abstractmethod
    def num_steps(self) -> int:
        """Steps of an epoch, the same in every epoch."""

    @abstractmethod
    def bounds(self, epoch: int) -> np.ndarray:
        """Return ``(num_steps * world_size + 1,)`` places: batch ``step * world_size + rank`` ends where the next begins."""

    def step_of(self, epoch: int, place: int) -> int:
        """Return the step that a place of the order falls into; ``num_steps`` for the end."""
        if place >= self.num_samples:
            return self.num_steps
        return int(np.searchsorted(self.bounds(epoch)[:: self.world_size], place, side="right")) - 1


class FixedBatches(Batching):
    """A fixed number of samples for each rank and step; the last two steps share what is left evenly.

    Args:
        num_samples: of an epoch.
        world_size: number of ranks, at least 1.
        batch_size: samples of a batch on one rank, at least 1.
        drop_last: leave out what does not fill a step, so that all batches are full.
    """

    def __init__(self, num_samples: int, world_size: int, batch_size: int, drop_last: bool = False) -> None:
        super().__init__(num_samples, world_size)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        self.batch_size, self.drop_last = batch_size, drop_last
        if drop_last:
            self.num_samples -= num_samples % (batch_size * world_size)

    @property
    def num_steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.num_samples // (self.batch_size * self.world_size))

    def bounds(self, epoch: int) -> np.ndarray:
        """Return where batches end; the same in every epoch."""
        step = self.batch_size * self.world_size
        steps = np.minimum(np.arange(self.num_steps + 1) * step, self.num_samples)
        if self.num_steps > 1 and self.num_samples % step:
            steps[-2] = (steps[-3] + steps[-1] + 1) // 2
        return _shared(steps, self.world_size)


class TokenBatches(Batching):
    """As many samples as fit into a number of tokens, over all modalities, for each rank and step.

    The order is cut into batches of nearly equal numbers of tokens, so ranks have equal work. No batch is over the limit, and the number
    of steps does not depend on the order.

    Args:
        num_samples: of an epoch.
        world_size: number of ranks, at least 1.
        lengths: epoch -> ``(s,)`` tokens of the samples in the order of the epoch.
        most_tokens: of any epoch.
        longest: tokens of the longest sample.
        max_tokens: most tokens of a batch on one rank; at least twice the longest sample.

    Raises:
        ValueError: ``max_tokens`` is too small for the longest sample.
    """

    def __init__(
        self, num_samples: int, world_size: int, lengths: Callable[[int], np.ndarray], most_tokens: int, longest: int, max_tokens: int
    ) -> None:
        super().__init__(num_samples, world_size)
        if max_tokens < 2 * longest or max_tokens < 1:
            raise ValueError(f"max_tokens {max_tokens} must be at least twice the tokens of the longest sample, {longest}.")
        self.lengths, self.max_tokens = lengths, max_tokens
        batches = -(-most_tokens // (max_tokens - longest))  # a batch ends at most one sample past its share
        self._steps = max(1, -(-batches // world_size)) if num_samples else 0
        self._cached: tuple[int, np.ndarray] | None = None

    @property
    def num_steps(self) -> int:
        """Steps of an epoch."""
        return self._steps

    def bounds(self, epoch: int) -> np.ndarray:
        """Return where batches end."""
        if self._cached is None or self._cached[0] != epoch:
            lengths = np.asarray(self.lengths(epoch), dtype=np.int64)
            starts = lengths.cumsum() - lengths
            batches = self._steps * self.world_size
            shares = np.arange(1, batches) * int(lengths.sum()) // max(1, batches)
            inner = np.searchsorted(starts, shares, side="left")
            self._cached = epoch, np.concatenate([[0], inner, [self.num_samples]]).astype(np.int64)
        return self._cached[1]


def _shared(steps: np.ndarray, world_size: int) -> np.ndarray:
    """Return the ends of batches, when each rank gets an equal part of each step."""
    sizes = np.diff(steps)
    inner = steps[:-1, None] + np.arange(world_size) * sizes[:, None] // world_size
    return np.append(inner.ravel(), steps[-1])
