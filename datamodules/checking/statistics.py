"""What the files in shards are like: sizes, lengths, rates, mean and spread of their values, measured by decoding them."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from multimodal.datamodules.checking.decoders import Decoders, load_decoders
from multimodal.datamodules.jobs.run_jobs import Advance, advance, run_jobs
from multimodal.datamodules.shards.index import ShardIndex, ShardInfo
from multimodal.datamodules.shards.reader import RawSample, ShardReader
from multimodal.errors import SampleError
from multimodal.protocols import Moments

SIZE = "bytes"
"""The measure that every field has."""


@dataclass
class Statistics:
    """Measures of the files that one transform reads, or of one field that none reads.

    Args:
        fields: that hold them.
        values: measure -> its value for each file; "bytes" is one of them.
        moments: measure -> sums over the values of all files, for each number of channels.
        problems: the first few files that could not be measured.
        bad: number of files that could not be measured.
    """

    fields: set[str] = field(default_factory=set)
    values: dict[str, array[float]] = field(default_factory=dict)
    moments: dict[str, dict[int, Moments]] = field(default_factory=dict)
    problems: list[SampleError] = field(default_factory=list)
    bad: int = 0

    def add(self, name: str, value: float | Moments) -> None:
        """Add what was measured of one file."""
        if isinstance(value, Moments):
            by_channels = self.moments.setdefault(name, {})
            by_channels[len(value.sums)] = _plus(by_channels.get(len(value.sums)), value)
        else:
            self.values.setdefault(name, array("d")).append(value)

    def add_problem(self, problem: SampleError) -> None:
        """Note a file that cannot be measured."""
        self.bad += 1
        if len(self.problems) < 3:
            self.problems.append(problem)

    def merge(self, other: Statistics) -> None:
        """Add the files of other shards."""
        self.fields |= other.fields
        for name, values in other.values.items():
            self.values.setdefault(name, array("d")).extend(values)
        for name, by_channels in other.moments.items():
            for moments in by_channels.values():
                self.add(name, moments)
        self.problems = (self.problems + other.problems)[:3]
        self.bad += other.bad

    def quantiles(self, name: str) -> dict[str, float]:
        """Return smallest, 5 %, median, 95 %, largest and mean of a measure."""
        values = np.frombuffer(self.values[name], np.float64)
        low, median, high = np.quantile(values, [0.05, 0.5, 0.95]).tolist()
        lowest, highest, mean = values.min().item(), values.max().item(), values.mean().item()
        return {"min": lowest, "5%": low, "median": median, "95%": high, "max": highest, "mean": mean}


class MeanAndSpread(NamedTuple):
    """Mean and standard deviation over all values of all files; one number where the channels agree, as those of grey files do.

    Args:
        mean: of each channel.
        std: of each channel.
        num_values: of each channel.
    """

    mean: list[float]
    std: list[float]
    num_values: int


def mean_and_spread(moments: Moments) -> MeanAndSpread:
    """Return mean and standard deviation, from sums that are exact to rounding in float64."""
    means = [total / moments.num_values for total in moments.sums]
    spreads = [math.sqrt(max(total / moments.num_values - mean**2, 0.0)) for total, mean in zip(moments.squares, means, strict=True)]
    if len(set(moments.sums)) == len(set(moments.squares)) == 1:
        means, spreads = means[:1], spreads[:1]
    return MeanAndSpread(means, spreads, moments.num_values)


class StatisticsTask(NamedTuple):
    """One shard to measure.

    Args:
        file: path of the shard.
        info: what the index says of it.
        samples: how many to read, the first ones.
        fields: to measure; None: all.
    """

    file: str
    info: ShardInfo
    samples: int
    fields: Sequence[str] | None = None


def measure_shards(
    index: ShardIndex,
    split: str,
    limit: int | None = None,
    fields: Sequence[str] | None = None,
    num_workers: int = 0,
    listener: Advance | None = None,
) -> dict[str, Statistics]:
    """Return name of a transform, or of a field that no transform reads -> what its files are like.

    Args:
        index: with its shards.
        split: to measure.
        limit: read about so many samples, an equal share of each shard; None: all.
        fields: to measure; None: all.
        num_workers: processes; 0 does it here.
        listener: told samples and bytes that are done.

    Raises:
        ValueError: there is no such split or field, or the split has no samples, or the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"the limit must be at least 1 sample, got {limit}.")
    if not index.num_samples(split):
        there = ", ".join(name for name in index.splits if index.num_samples(name))
        raise ValueError(f"{index.root} has no samples in split {split!r}; there are: {there or 'none'}.")
    unknown = sorted(set(fields or ()) - index.fields.keys())
    if unknown:
        raise ValueError(f"{index.root} has no field {', '.join(unknown)}; there are: {', '.join(sorted(index.fields)) or 'none'}.")
    tasks = [task._replace(fields=fields) for task in _tasks(index, split, limit)]
    found: dict[int, dict[str, Statistics]] = dict(run_jobs(measure_shard, tasks, num_workers, listener=listener))
    result: dict[str, Statistics] = {}
    for _, part in sorted(found.items()):  # in the order of the shards, so that sums of floats do not depend on the processes
        for name, statistics in part.items():
            result.setdefault(name, Statistics()).merge(statistics)
    return dict(sorted(result.items()))


def num_to_read(index: ShardIndex, split: str, limit: int | None) -> int:
    """Return how many samples ``measure_shards`` reads."""
    return sum(task.samples for task in _tasks(index, split, limit))


def _tasks(index: ShardIndex, split: str, limit: int | None) -> Iterator[StatisticsTask]:
    total, before = index.num_samples(split), 0
    share = min(1.0, (total if limit is None else limit) / max(total, 1))
    for shard in index.shards(split):
        first, before = before, before + shard.samples
        wanted = round(before * share) - round(first * share)  # so that the shares of all shards add up
        if wanted:
            yield StatisticsTask(str(index.root / shard.path), shard, wanted)


def measure_shard(task: StatisticsTask) -> dict[str, Statistics]:
    """Return the statistics of one shard; what cannot be read or decoded is counted."""
    decoders = load_decoders()
    result: dict[str, Statistics] = {}
    reader = ShardReader(task.file, task.info.samples, task.info.path)
    for position in range(task.samples):
        raw = reader.read(position, task.fields)
        if isinstance(raw, RawSample):
            for name, data in raw.fields.items():
                _measure(raw, name, data, decoders, result)
        else:
            result.setdefault("damaged samples", Statistics()).add_problem(raw)
        advance(1, sum(map(len, raw.fields.values())) if isinstance(raw, RawSample) else 0)
    reader.close()
    return result


def _measure(raw: RawSample, name: str, data: bytes, decoders: Decoders, result: dict[str, Statistics]) -> None:
    transform = decoders.find(name)
    statistics = result.setdefault(name if transform is None else type(transform).__name__, Statistics())
    statistics.fields.add(name)
    statistics.add(SIZE, len(data))
    try:
        measures: Mapping[str, float | Moments] = {} if transform is None else transform.describe(data)
    except Exception as error:  # what a decoder's library raises on hostile bytes must not end the run, whatever it is
        reason = str(error) if isinstance(error, ValueError) else f"the decoder failed: {type(error).__name__}: {error}"
        statistics.add_problem(SampleError(raw.shard, raw.key, name, reason))
        return
    for measure, value in measures.items():
        statistics.add(measure, value)


def _plus(first: Moments | None, second: Moments) -> Moments:
    if first is None:
        return second
    return Moments(first.num_values + second.num_values, _added(first.sums, second.sums), _added(first.squares, second.squares))


def _added(first: Sequence[float], second: Sequence[float]) -> tuple[float, ...]:
    return tuple(one + other for one, other in zip(first, second, strict=True))
