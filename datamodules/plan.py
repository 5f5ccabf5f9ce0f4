"""Who reads which samples in which order, as a function of the seed and the epoch. No file is opened here.

The shards of a source, one after the other, are its *tape*. The tapes of several sources are merged into one, in proportion to what remains
of each. Training permutes the shards of each tape, starts it at a random place, and gives each worker of each rank one contiguous range
of the merged tape: reading is sequential, no sample is read twice, and the rest that is dropped differs from epoch to epoch. Evaluation
leaves the tapes as they are and deals whole batches, so that the order does not depend on the number of workers.

Letters: n samples of one worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")


class Reads(NamedTuple):
    """The samples that a worker reads, in order.

    Args:
        source: ``(n,)`` number of the source.
        shard: ``(n,)`` number of the shard in the source.
        position: ``(n,)`` number of the sample in the shard.
    """

    source: np.ndarray
    shard: np.ndarray
    position: np.ndarray


class EpochPlan:
    """The order of every epoch, for every rank and worker.

    Training: all ranks have the same number of full batches, each sample is read at most once in an epoch, fewer than
    ``world_size * batch_size`` are dropped. Evaluation: every sample is read exactly once; one batch may be smaller; ranks may differ by
    one batch.

    Args:
        shard_sizes: for each source, the number of samples of each of its shards.
        batch_size: samples of a batch on one rank.
        train: which of the two.
        seed: of the order, at least 0; evaluation has one fixed order.
        world_size: number of ranks.
        num_workers: reading processes of each rank; 0 reads in the rank itself, in the same order as 1.
    """

    def __init__(
        self,
        shard_sizes: Sequence[Sequence[int]],
        batch_size: int,
        train: bool,
        seed: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        _check_least(1, batch_size=batch_size, world_size=world_size)
        _check_least(0, seed=seed, num_workers=num_workers)
        self.shard_sizes = [np.asarray(sizes, dtype=np.int64) for sizes in shard_sizes]
        self.source_sizes = [int(sizes.sum()) for sizes in self.shard_sizes]
        self.num_samples = sum(self.source_sizes)
        self.batch_size, self.train, self.seed = batch_size, train, seed
        self.world_size, self.num_workers = world_size, num_workers

    def batches(self, rank: int) -> range:
        """Return the numbers of the batches of a rank, among those of all ranks."""
        if self.train:
            steps = self.num_samples // (self.world_size * self.batch_size)
            return range(rank * steps, (rank + 1) * steps)
        total = -(-self.num_samples // self.batch_size)
        return range(rank * total // self.world_size, (rank + 1) * total // self.world_size)

    def worker_batches(self, rank: int, worker: int = 0) -> range:
        """Return the numbers of the batches of a rank that fall to a worker; the loader takes them from the workers in turn."""
        return self.batches(rank)[worker :: max(1, self.num_workers)]

    def reads(self, epoch: int, rank: int = 0, worker: int = 0) -> Reads:
        """Return what a worker reads in an epoch."""
        slots = self._slots(rank, worker)
        source = self._merged(epoch)
        chosen = source[slots]
        reads = Reads(chosen.astype(np.int64), np.empty(len(slots), np.int64), np.empty(len(slots), np.int64))
        for number in np.unique(chosen).tolist():
            here = chosen == number
            place = slots[here] if len(self.source_sizes) == 1 else np.cumsum(source == number)[slots[here]] - 1
            reads.shard[here], reads.position[here] = self._locate(epoch, number, place)
        return reads

    def shuffle_generator(self, epoch: int, rank: int = 0, worker: int = 0) -> np.random.Generator:
        """Return the generator of a worker's shuffle buffer."""
        return np.random.default_rng([self.seed, epoch, 1, rank, worker])

    def _slots(self, rank: int, worker: int) -> np.ndarray:
        """Return ``(n,)`` places on the merged tape, ascending."""
        batches = self.worker_batches(rank, worker)
        if not self.train:
            starts = np.asarray(batches, dtype=np.int64) * self.batch_size
            slots = np.add.outer(starts, np.arange(self.batch_size)).ravel()
            return slots[slots < self.num_samples]
        before = sum(len(self.worker_batches(rank, earlier)) for earlier in range(worker))
        start = (self.batches(rank).start + before) * self.batch_size
        return np.arange(start, start + len(batches) * self.batch_size)

    def _merged(self, epoch: int) -> np.ndarray:
        """Return ``(samples,)``: the source of each place of the merged tape; 2 bytes a sample."""
        source = np.repeat(np.arange(len(self.source_sizes), dtype=np.uint16), self.source_sizes)
        if len(self.source_sizes) < 2:
            return source
        return np.random.default_rng([self.seed, epoch, 0] if self.train else 0).permutation(source)

    def _locate(self, epoch: int, source: int, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the shard and position of places on the tape of a source."""
        sizes = self.shard_sizes[source]
        order = np.arange(len(sizes))
        if self.train:
            rng = np.random.default_rng([self.seed, epoch, 2, source])
            order = rng.permutation(order)
            place = (place + rng.integers(self.source_sizes[source])) % self.source_sizes[source]  # else a lone shard always loses its end
        ends = sizes[order].cumsum()
        index = np.searchsorted(ends, place, side="right")
        return order[index], place - (ends[index] - sizes[order][index])


def _check_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")


def shuffled(items: Iterable[T], buffer_size: int, generator: np.random.Generator) -> Iterator[T]:
    """Yield the items in an order drawn from a buffer of ``buffer_size`` of them; below 2, as they come."""
    if buffer_size < 2:
        yield from items
        return
    buffer: list[T] = []
    for item in items:
        if len(buffer) < buffer_size:
            buffer.append(item)
        else:
            place = int(generator.integers(buffer_size))
            yield buffer[place]
            buffer[place] = item
    for place in generator.permutation(len(buffer)):
        yield buffer[place]
