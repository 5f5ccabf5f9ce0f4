"""Check shards against their index: every shard, every sample and, if asked for, the contents of every field."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from multimodal.datamodules.checking.shard_check import EVERY, MAX_PROBLEMS, ShardReport, ShardTask, check_shard
from multimodal.datamodules.jobs.run_jobs import Advance, run_jobs
from multimodal.datamodules.shards.contents import Contents, total
from multimodal.datamodules.shards.index import FILE_NAME, ShardIndex, mime_type
from multimodal.datamodules.shards.reader import ShardReader
from multimodal.errors import SampleError

Tell = Callable[[SampleError], object]
"""Told each problem, in the order of the shards."""


@dataclass
class Verification:
    """The outcome.

    Args:
        shards: number of shards looked at.
        bad_shards: number of them with a problem.
        problems: number of problems.
        more: how many of them were counted only, since a shard lists no more than 100,000.
        contents: what the shards hold.
        unchecked: (field, reason) -> fields that could not be checked.
        compared: whether the counts of the index were compared; they are not where a shard could not be read to its end.
    """

    shards: int = 0
    bad_shards: int = 0
    problems: int = 0
    more: int = 0
    contents: Contents = field(default_factory=Contents)
    unchecked: Counter[tuple[str, str]] = field(default_factory=Counter)
    compared: bool = False


def open_index(folder: Path | str) -> ShardIndex:
    """Return the index of a folder whose shards may be missing or damaged.

    Raises:
        ValueError: there is no index, or it is damaged: then there is nothing to check against.
    """
    path = Path(folder) / FILE_NAME
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}. `multimodal shards write` makes one.") from None
    return replace(ShardIndex.parse(content, str(path)), root=Path(folder))


def verify_shards(index: ShardIndex, tell: Tell, deep: bool = False, num_workers: int = 0, listener: Advance | None = None) -> Verification:
    """Check all shards of an index.

    Args:
        index: from ``open_index``.
        tell: called with each problem, shard by shard; the shard is named as in the index, "*" stands for every key or field.
        deep: also decode every field, with the default settings of the transform that claims it.
        num_workers: processes; 0 does it here. A decoder that brings its process down is a problem of the shard where there are processes.
        listener: told samples and bytes that are done.

    Returns:
        Counts. Nothing that a shard holds makes this raise.
    """
    tasks = _tasks(index, deep)
    result, hashes, parts, whole = Verification(shards=len(tasks)), [], [], True
    for report in _in_order(_reports(tasks, num_workers, listener), len(tasks)):
        for problem in report.problems:
            tell(problem)
        result.problems += len(report.problems) + report.more
        result.more += report.more
        result.bad_shards += bool(report.problems)
        result.unchecked.update(report.unchecked)
        whole &= report.whole
        hashes.append(report.key_hashes)
        parts.append(report.contents)
    result.contents, result.compared = total(parts), whole
    last = [*_repeated_keys(tasks, hashes), *_index_problems(index), *(_differences(index, result.contents) if whole else ())]
    for problem in last:
        tell(problem)
    result.problems += len(last)
    return result


def _tasks(index: ShardIndex, deep: bool) -> list[ShardTask]:
    samples = sum(index.num_samples(split) for split in index.splits)
    fields = frozenset(index.fields)
    everywhere = frozenset(name for name, info in index.fields.items() if info.samples == samples)
    return [
        ShardTask(str(index.root / shard.path), shard, split, fields, everywhere, index.ids, deep, bool(index.tag_counts))
        for split, shards in index.splits.items()
        for shard in shards
    ]


def _reports(tasks: Sequence[ShardTask], num_workers: int, listener: Advance | None) -> Iterator[tuple[int, ShardReport]]:
    """Yield (number of the shard, report), in any order."""
    left = dict(enumerate(tasks))
    try:
        for number, report in run_jobs(check_shard, tasks, num_workers, listener=listener):
            del left[number]
            yield number, report
    except ChildProcessError:
        for number, task in left.items():  # one by one, to find which of them ends its process
            yield number, _alone(task, listener)


def _alone(task: ShardTask, listener: Advance | None) -> ShardReport:
    try:
        return next(report for _, report in run_jobs(check_shard, [task], 1, listener=listener))
    except ChildProcessError as error:
        report = ShardReport(task.info.path)
        report.add(EVERY, EVERY, f"reading it ends the process: {error}")
        return report


def _in_order(reports: Iterator[tuple[int, ShardReport]], count: int) -> Iterator[ShardReport]:
    waiting: dict[int, ShardReport] = {}
    following = 0
    for number, report in reports:
        waiting[number] = report
        while following in waiting:
            yield waiting.pop(following)
            following += 1
    assert following == count


def _repeated_keys(tasks: Sequence[ShardTask], hashes: Sequence[array[int]]) -> list[SampleError]:
    """Return a problem for each sample whose key an earlier sample has, in whatever shard or split.

    Keys are compared by hash, eight bytes each; names are read only where hashes agree.
    """
    starts = np.cumsum([0, *map(len, hashes)])
    every = np.concatenate([np.frombuffer(part, np.uint64) for part in hashes if len(part)] or [np.empty(0, np.uint64)])
    order = np.argsort(every, kind="stable")
    equal = every[order[1:]] == every[order[:-1]]
    suspects = np.unique(np.concatenate([order[1:][equal], order[:-1][equal]]))
    problems: list[SampleError] = []
    seen: dict[str, tuple[int, int]] = {}
    for shard in np.unique(np.searchsorted(starts, suspects, side="right") - 1).tolist():
        reader = ShardReader(tasks[shard].file, tasks[shard].info.samples)
        places = suspects[(suspects >= starts[shard]) & (suspects < starts[shard + 1])] - starts[shard]
        for place in places.tolist():
            earlier = seen.setdefault(reader.key(place), (shard, place))
            if earlier != (shard, place) and len(problems) < MAX_PROBLEMS:
                where = _where(tasks, earlier[0], shard)
                problems.append(SampleError(tasks[shard].info.path, reader.key(place), EVERY, f"the key is there twice: {where}."))
        reader.close()
    return problems


def _where(tasks: Sequence[ShardTask], earlier: int, shard: int) -> str:
    if earlier == shard:
        return "in this shard; two samples, or the fields of one that do not stand side by side"
    if tasks[earlier].split == tasks[shard].split:
        return f"also in {tasks[earlier].info.path}"
    return f"also in {tasks[earlier].info.path} of split {tasks[earlier].split!r}"


def _index_problems(index: ShardIndex) -> Iterator[SampleError]:
    """Yield what is wrong with the index itself."""
    paths = Counter(shard.path for shards in index.splits.values() for shard in shards)
    for path, count in paths.items():
        if count > 1:
            yield SampleError(FILE_NAME, EVERY, EVERY, f"it lists {path} {count} times.")
    for name, info in index.fields.items():
        if info.type != mime_type(name):
            yield SampleError(FILE_NAME, EVERY, name, f"it says the type {info.type}; the name stands for {mime_type(name)}.")


def _differences(index: ShardIndex, found: Contents) -> Iterator[SampleError]:
    """Yield where the counts of the index are not those of the shards."""
    yield from _unequal({name: info.samples for name, info in index.fields.items()}, found.fields, "samples have the field")
    yield from _unequal({name: info.bytes for name, info in index.fields.items()}, found.field_bytes, "bytes are in the field")
    yield from _unequal_labels(index.class_counts, found.class_counts, "have the label")
    if index.tag_counts:  # an older index counts none
        yield from _unequal_labels(index.tag_counts, found.tag_counts, "have among their labels")


def _unequal_labels(said: Mapping[str, int], found: Mapping[str, int], what: str) -> Iterator[SampleError]:
    for label in sorted(said.keys() | found.keys()):
        if said.get(label, 0) != found.get(label, 0):
            reason = f"{found.get(label, 0)} samples {what} {label!r}; it says {said.get(label, 0)}."
            yield SampleError(FILE_NAME, EVERY, EVERY, reason)


def _unequal(said: Mapping[str, int], found: Mapping[str, int], what: str) -> Iterator[SampleError]:
    for name in sorted(said.keys() | found.keys()):
        if said.get(name, 0) != found.get(name, 0):
            yield SampleError(FILE_NAME, EVERY, name, f"{found.get(name, 0)} {what}; it says {said.get(name, 0)}.")
