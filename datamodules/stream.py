"""The data set that yields whole batches, and its loader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from multimodal.batch import Batch, Sample, collate
from multimodal.datamodules.bad_samples import BadSamples
from multimodal.datamodules.index import ShardIndex
from multimodal.datamodules.plan import EpochPlan, Reads, shuffled
from multimodal.datamodules.preparation import SamplePreparation
from multimodal.datamodules.reader import RawSample, read_samples
from multimodal.errors import SampleError


@dataclass(frozen=True)
class Failure:
    """An error on its way from a worker: torch would turn it into a RuntimeError that has lost its parts."""

    error: ValueError


class ShardStream(IterableDataset):
    """The batches of one split on one rank.

    A training batch holds ``batch_size`` samples less the bad ones, so that bad samples change no other batch. If none is left, it goes
    on to the next good sample; if there is none either, it is the last good sample once more: the number of batches is as planned on
    every rank, whatever is damaged. An evaluation batch without a good sample is left out.

    Args:
        sources: the indexes.
        split: which split of them.
        plan: the order; made for the number of workers that the loader has.
        preparation: from bytes to samples.
        bad: what to do about bad samples.
        rank: of this process.
        shuffle_buffer: samples in memory, as bytes, from which a training worker draws the next one.
    """

    def __init__(
        self,
        sources: Sequence[ShardIndex],
        split: str,
        plan: EpochPlan,
        preparation: SamplePreparation,
        bad: BadSamples,
        rank: int = 0,
        shuffle_buffer: int = 0,
    ) -> None:
        super().__init__()
        self.sources, self.split, self.plan, self.preparation = list(sources), split, plan, preparation
        self.bad, self.rank, self.shuffle_buffer = bad, rank, shuffle_buffer
        self.epoch_of: Callable[[], int] | None = None
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # workers that stay alive see it change
        self._started = 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"epoch_of": None}  # it leads to the trainer, which must not travel to a worker

    def __len__(self) -> int:
        """Number of batches on this rank."""
        return len(self.plan.batches(self.rank))

    def start_epoch(self) -> None:
        """Fix the epoch of the iteration that is about to start: the trainer's, else the number of iterations so far; 0 in evaluation."""
        if self.plan.train:
            self._epoch[0] = self._started if self.epoch_of is None else self.epoch_of()
            self._started += 1

    def __iter__(self) -> Iterator[Batch | Failure]:
        worker = get_worker_info()
        if worker is None:
            yield from self._batches(0)
            return
        if worker.num_workers != max(1, self.plan.num_workers):
            raise ValueError(f"the order is planned for num_workers={self.plan.num_workers}, the loader has {worker.num_workers}.")
        try:
            yield from self._batches(worker.id)
        except ValueError as error:
            yield Failure(error)

    def _batches(self, worker: int) -> Iterator[Batch]:
        epoch = int(self._epoch)
        self.bad.start()
        samples = self._samples(epoch, worker)
        last: Sample | None = None
        numbers = self.plan.worker_batches(self.rank, worker)
        for number in numbers:
            good = [sample for sample in islice(samples, self.plan.batch_size) if sample is not None]
            if not good and self.plan.train:
                spare = next((sample for sample in samples if sample is not None), last)
                if spare is None:
                    raise ValueError(f"none of the {self.bad.read} samples of a worker can be used; the last: {self.bad.last}")
                good = [spare]
            if number == numbers[-1]:
                self.bad.finish()
            if good:
                last = good[-1]
                yield collate(good)

    def _samples(self, epoch: int, worker: int) -> Iterator[Sample | None]:
        """Yield one result for each sample planned, None for a bad one."""
        raw = self._raw(self.plan.reads(epoch, self.rank, worker))
        if self.plan.train:
            raw = shuffled(raw, self.shuffle_buffer, self.plan.shuffle_generator(epoch, self.rank, worker))
        for source, result in raw:
            try:
                if isinstance(result, SampleError):
                    raise result
                sample = self.preparation(result, source, epoch)
            except SampleError as error:
                self.bad.count_bad(error)
                yield None
            else:
                self.bad.count_good()
                yield sample

    def _raw(self, reads: Reads) -> Iterator[tuple[int, RawSample | SampleError]]:
        streams = {int(source): self._source(int(source), reads) for source in np.unique(reads.source)}
        for source in reads.source.tolist():
            yield source, next(streams[source])

    def _source(self, source: int, reads: Reads) -> Iterator[RawSample | SampleError]:
        """Yield the samples of one source, one ascending run of one shard after the other."""
        shard, position = (numbers[reads.source == source] for numbers in (reads.shard, reads.position))
        breaks = np.flatnonzero((np.diff(shard) != 0) | (np.diff(position) <= 0)) + 1
        index = self.sources[source]
        infos = index.shards(self.split)
        for start, stop in zip([0, *breaks], [*breaks, len(shard)], strict=True):
            info = infos[shard[start]]
            yield from read_samples(index.root / info.path, position[start:stop].tolist(), info.samples, self.preparation.wanted)


class EpochLoader(DataLoader):
    """A loader over a ``ShardStream`` that tells it the epoch and raises the errors of its workers as they were."""

    dataset: ShardStream

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self.dataset.start_epoch()
        return self._raise_failures(super().__iter__())

    def _raise_failures(self, batches: Iterator[Batch | Failure]) -> Iterator[Batch]:
        for batch in batches:
            if isinstance(batch, Failure):
                self._iterator = None
                del batches  # with the line before: the workers end now, not when the traceback is forgotten
                raise batch.error
            yield batch
