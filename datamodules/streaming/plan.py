"""The order of every epoch, as a function of the seed and the epoch alone. No file is opened here.

The order does not know ranks, workers or batches: those only cut it (``batching.py``). So the same samples meet in a step however many
processes read them, and a run can go on from any place of it, with any number of processes.

The samples of a source are laid out shard after shard, the shards in an order drawn for each pass. This *tape* is cut into blocks of
``shuffle_buffer`` samples, and the samples of a block change places among themselves: at any time only the shards of about one block are
read from, yet no worker has to hold samples in memory, and any place is found without the ones before it. The tapes of several sources
are merged, in proportion, in blocks that are shuffled too.

Letters: n places.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from multimodal.datamodules.streaming.mixture import Mixture

MERGE_BLOCK = 65536


class Reads(NamedTuple):
    """Samples to read, in order.

    Args:
        source: ``(n,)`` number of the source.
        turn: ``(n,)`` how often the source was read through before: the epoch, unless a mixture changes the shares.
        shard: ``(n,)`` number of the shard in the source.
        position: ``(n,)`` number of the sample in the shard.
    """

    source: np.ndarray
    turn: np.ndarray
    shard: np.ndarray
    position: np.ndarray


class EpochPlan:
    """Which sample comes at which place of which epoch.

    Args:
        shard_sizes: for each source, the number of samples of each of its shards.
        train: whether to shuffle; else the one fixed order, shard after shard, source after source.
        seed: of the order, at least 0.
        shuffle_buffer: samples among which the order is drawn; below 2 only whole shards are shuffled.
        mixture: shares of the sources in training.
    """

    def __init__(
        self,
        shard_sizes: Sequence[Sequence[int]],
        train: bool,
        seed: int = 0,
        shuffle_buffer: int = 10_000,
        mixture: Mixture | None = None,
    ) -> None:
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}.")
        if shuffle_buffer < 0:
            raise ValueError(f"shuffle_buffer must be at least 0, got {shuffle_buffer}.")
        self.shard_sizes = [np.asarray(sizes, dtype=np.int64) for sizes in shard_sizes]
        self.source_sizes = [int(sizes.sum()) for sizes in self.shard_sizes]
        self.counts = mixture.counts(self.source_sizes) if mixture and train else self.source_sizes
        self.num_samples = sum(self.counts)
        self.train, self.seed, self.shuffle_buffer = train, seed, shuffle_buffer
        blocks = max(1, -(-self.num_samples // MERGE_BLOCK))
        self._before = np.arange(blocks + 1)[:, None] * np.asarray(self.counts, dtype=np.int64) // blocks  # (blocks + 1, sources) places

    def reads(self, epoch: int, places: np.ndarray) -> Reads:
        """Return what stands at places of an epoch.

        Args:
            epoch: at least 0; evaluation has the same order in every epoch.
            places: ``(n,)`` whole numbers in [0, num_samples).
        """
        places = np.asarray(places, dtype=np.int64)
        source, rank = self._merged(epoch, places)
        reads = Reads(source, *(np.empty_like(places) for _ in range(3)))
        for number in np.unique(source).tolist():
            here = np.flatnonzero(source == number)
            since_start = rank[here] + (epoch * self.counts[number] if self.train else 0)
            reads.turn[here], place = np.divmod(since_start, self.source_sizes[number])
            reads.shard[here], reads.position[here] = self._locate(number, reads.turn[here], place)
        return reads

    def _merged(self, epoch: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for places ``(n,)`` of an epoch the source, and the rank among the places of that source."""
        if len(self.counts) == 1:
            return np.zeros_like(places), places
        if not self.train:
            ends = np.cumsum(self.counts)
            source = np.searchsorted(ends, places, side="right")
            return source, places - (ends - self.counts)[source]
        starts = self._before.sum(1)
        source, rank = np.empty_like(places), np.empty_like(places)
        block = np.searchsorted(starts, places, side="right") - 1
        for number in np.unique(block).tolist():
            here = np.flatnonzero(block == number)
            counts = tuple((self._before[number + 1] - self._before[number]).tolist())
            drawn, drawn_rank = _merge((self.seed, epoch, 0, number), counts)
            inside = places[here] - starts[number]
            source[here] = drawn[inside]
            rank[here] = self._before[number][source[here]] + drawn_rank[inside]
        return source, rank

    def _locate(self, source: int, turn: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return shard and position of places ``(n,)`` on the tape of a source in each turn."""
        shard, position = np.empty_like(place), np.empty_like(place)
        sizes = self.shard_sizes[source]
        for number in np.unique(turn).tolist():
            here = np.flatnonzero(turn == number)
            order = _permutation((self.seed, number, 2, source), len(sizes)) if self.train else np.arange(len(sizes))
            ends = sizes[order].cumsum()
            moved = self._shuffled(source, number, place[here]) if self.train else place[here]
            index = np.searchsorted(ends, moved, side="right")
            shard[here], position[here] = order[index], moved - (ends[index] - sizes[order][index])
        return shard, position

    def _shuffled(self, source: int, turn: int, place: np.ndarray) -> np.ndarray:
        """Return where on the tape the samples lie that come at places ``(n,)`` of a turn."""
        if self.shuffle_buffer < 2:
            return place
        moved = np.empty_like(place)
        block = place // self.shuffle_buffer
        for number in np.unique(block).tolist():
            here = np.flatnonzero(block == number)
            first = number * self.shuffle_buffer
            size = min(self.shuffle_buffer, self.source_sizes[source] - first)
            moved[here] = first + _permutation((self.seed, turn, 3, source, number), size)[place[here] - first]
        return moved


@lru_cache(maxsize=32)
def _permutation(seed: tuple[int, ...], size: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(size)


@lru_cache(maxsize=4)
def _merge(seed: tuple[int, ...], counts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return, for ``counts`` samples of each source in a random order, the source of each and its rank among those of its source."""
    rank = np.concatenate([np.arange(count) for count in counts])
    source = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    ranked = np.empty_like(rank)
    ranked[np.argsort(source, kind="stable")] = rank  # the order of a tape stays
    return source, ranked
