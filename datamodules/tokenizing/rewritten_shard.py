"""Make a shard from another one, sample by sample: of the same name, with the same keys in the same order, and other fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from multimodal.datamodules.jobs.run_jobs import advance
from multimodal.datamodules.shards.cache import ShardCache
from multimodal.datamodules.shards.contents import METADATA, Contents
from multimodal.datamodules.shards.index import ShardInfo
from multimodal.datamodules.shards.reader import RawSample, ShardReader
from multimodal.datamodules.shards.shard_file import ShardFile
from multimodal.errors import SampleError

Rewrite = Callable[[Iterator[RawSample], list[str]], Iterator[tuple[RawSample, dict[str, bytes]]]]
"""Samples of a batch, and the problems of the shard so far, a line each, to be added to -> the samples with their new fields."""


@dataclass(frozen=True)
class ShardJob:
    """One shard to make.

    Args:
        location: path or URL of the source.
        remote: whether it is a URL, which is read through the cache of shards.
        info: of the source, as its index says.
        train: whether its views are crops for training.
        target: path of the new shard.
    """

    location: str
    remote: bool
    info: ShardInfo
    train: bool
    target: Path

    def reader(self) -> ShardReader:
        """Return the reader of the source.

        Raises:
            OSError: it is remote and cannot be fetched.
        """
        path = ShardCache().fetch(self.location, self.info) if self.remote else self.location
        return ShardReader(path, self.info.samples, self.location)


@dataclass(frozen=True)
class PlannedJob(ShardJob):
    """A shard to make, and its place in the run.

    Args:
        split: that it belongs to.
        plan: a hash of all that decides its bytes.
    """

    split: str
    plan: str

    @property
    def path(self) -> str:
        """Its name in the new folder."""
        return self.target.name

    @property
    def num_samples(self) -> int:
        """How many samples it will have: those of the source."""
        return self.info.samples


def rewrite_shard(job: ShardJob, batch_size: int, rewrite: Rewrite) -> tuple[ShardInfo, Contents]:
    """Write the new shard.

    Args:
        job: names source and target.
        batch_size: samples that ``rewrite`` gets at once.
        rewrite: gives the new fields of a batch, in the order of the samples.

    Raises:
        SampleError: the source is damaged, or the metadata of a sample cannot be written.
        OSError: the disk is full, or the source cannot be fetched.
    """
    reader = job.reader()
    with ShardFile(job.target) as shard:
        for start in range(0, job.info.samples, batch_size):
            positions = range(start, min(start + batch_size, job.info.samples))
            for raw, fields in rewrite(_samples(reader, positions), shard.contents.problems):
                advance(1, _add(shard, raw, fields))
    reader.close()
    return shard.info, shard.contents


def _samples(reader: ShardReader, positions: range) -> Iterator[RawSample]:
    for position in positions:
        raw = reader.read(position)
        if isinstance(raw, SampleError):  # keys and order of the source cannot be kept without it
            raise raw
        yield raw


def _add(shard: ShardFile, raw: RawSample, fields: dict[str, bytes]) -> int:
    try:
        return shard.add(raw.key, fields)
    except ValueError as error:
        raise SampleError(raw.shard, raw.key, METADATA, str(error)) from None


@contextmanager
def one_thread(device: str) -> Iterator[None]:
    """Keep torch to one thread on the CPU: processes share the cores, and sums do not depend on how many there are."""
    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
