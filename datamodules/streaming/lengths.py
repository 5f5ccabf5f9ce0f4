"""How many tokens every sample has: measured once, for batches of a number of tokens."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from multimodal.atomic import atomic_file
from multimodal.batch import collate
from multimodal.datamodules.shards.cache import OpenShards, file_lock
from multimodal.datamodules.shards.keys import stable_hash
from multimodal.datamodules.streaming.plan import EpochPlan
from multimodal.datamodules.streaming.preparation import SamplePreparation
from multimodal.errors import SampleError
from multimodal.protocols import TokenCounter


class Lengths:
    """Tokens of every sample of a split, as it is seen in evaluation: a view in training must have as many.

    They are measured by reading the split once, and kept in a file beside the copies of remote shards, so that this happens once for a
    data set and a model. A bad sample has 0.

    Args:
        shards: where the samples lie.
        preparation: from bytes to samples, of evaluation.
        count: counts tokens.
        num_workers: reading processes.
    """

    def __init__(self, shards: OpenShards, preparation: SamplePreparation, count: TokenCounter, num_workers: int = 0) -> None:
        sizes = [[shard.samples for shard in source.shards(shards.split)] for source in shards.sources]
        self._starts = [np.cumsum([0, *numbers])[:-1] for numbers in sizes]
        path = self._path(shards, count)
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path):  # of several ranks one measures, the others wait for it
            table = _load(path, sum(map(sum, sizes)))
            if table is None:
                table = _measure(shards, preparation, count, num_workers)
                with atomic_file(path) as file:
                    np.save(file, table, allow_pickle=False)
        ends = np.cumsum([sum(numbers) for numbers in sizes])
        self.tables = np.split(table.astype(np.int64), ends[:-1])

    @property
    def longest(self) -> int:
        """Tokens of the longest sample."""
        return max((int(table.max(initial=0)) for table in self.tables), default=0)

    def most_tokens(self, plan: EpochPlan) -> int:
        """Return a number of tokens that no epoch of a plan exceeds."""
        return sum(_most(table, count) for table, count in zip(self.tables, plan.counts, strict=True))

    def in_order(self, plan: EpochPlan, epoch: int) -> np.ndarray:
        """Return ``(samples,)`` the tokens of the samples in the order of an epoch."""
        reads = plan.reads(epoch, np.arange(plan.num_samples))
        lengths = np.empty(plan.num_samples, dtype=np.int64)
        for source, (starts, table) in enumerate(zip(self._starts, self.tables, strict=True)):
            here = np.flatnonzero(reads.source == source)
            lengths[here] = table[starts[reads.shard[here]] + reads.position[here]]
        return lengths

    @staticmethod
    def _path(shards: OpenShards, count: TokenCounter) -> Path:
        names = [[source.location(info), info.samples, info.bytes, info.sha256] for source, info in _infos(shards)]
        return shards.cache.path / "lengths" / f"{stable_hash(names, shards.split, count.fingerprint()):016x}.npy"


def _most(table: np.ndarray, count: int) -> int:
    """Return the tokens of ``count`` samples at most: some passes, and of the last one the longest."""
    if not len(table):
        return 0
    passes, rest = divmod(count, len(table))
    return passes * int(table.sum()) + int(np.sort(table)[len(table) - rest :].sum())


def _infos(shards: OpenShards) -> Iterable[tuple[Any, Any]]:
    return ((source, info) for source in shards.sources for info in source.shards(shards.split))


def _load(path: Path, samples: int) -> np.ndarray | None:
    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return table if table.shape == (samples,) else None


def _measure(shards: OpenShards, preparation: SamplePreparation, count: TokenCounter, num_workers: int) -> np.ndarray:
    from rich.progress import track

    dataset = _ShardLengths(shards, preparation, count)
    loader = DataLoader(dataset, batch_size=None, num_workers=num_workers)
    bar = track(loader, "measuring lengths", len(dataset), transient=True, disable=int(os.environ.get("LOCAL_RANK", 0)) > 0)
    return np.concatenate([np.asarray(lengths, dtype=np.uint32) for lengths in bar] or [np.empty(0, np.uint32)])


class _ShardLengths(Dataset):
    """The tokens of the samples of each shard."""

    def __init__(self, shards: OpenShards, preparation: SamplePreparation, count: TokenCounter) -> None:
        self.shards, self.preparation, self.count = shards, preparation, count
        self.numbers = [(s, n) for s, source in enumerate(shards.sources) for n in range(len(source.shards(shards.split)))]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> np.ndarray:
        source, shard = self.numbers[index]
        samples = self.shards.sources[source].shards(self.shards.split)[shard].samples
        return np.array([self._length(source, shard, position) for position in range(samples)], dtype=np.int64)

    def _length(self, source: int, shard: int, position: int) -> int:
        reader = self.shards.reader(source, shard)
        raw = reader.read(position, self.preparation.wanted(source, 0, reader.key(position)))
        try:
            return 0 if isinstance(raw, SampleError) else int(self.count(collate([self.preparation(raw, source, 0)])))
        except SampleError:
            return 0
