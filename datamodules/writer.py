"""Write samples into tar shards that plain webdataset reads; the same samples give the same bytes.

A shard gets its name when it is complete. What is finished is noted in a journal, so that the same command after an interruption goes on
where it stopped; the index is written last, and a folder without one is unfinished.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from multimodal.datamodules.contents import Contents, total
from multimodal.datamodules.index import FILE_NAME, ShardIndex, ShardInfo, field_info
from multimodal.datamodules.journal import Journal
from multimodal.datamodules.shard_file import ShardFile
from multimodal.datamodules.sources import FileError, SourceSample

Advance = Callable[[int, int], None]
"""Told the number of samples and bytes after each sample."""


@dataclass
class WriteResult:
    """What a run wrote.

    Args:
        index: as saved.
        problems: one line for each sample left out.
        kept: number of shards that an interrupted run had finished.
    """

    index: ShardIndex
    problems: list[str]
    kept: int


def write_shards(
    splits: Mapping[str, Sequence[SourceSample]],
    folder: Path | str,
    samples_per_shard: int = 1000,
    on_error: Literal["raise", "skip"] = "raise",
    settings: Mapping[str, Any] | None = None,
    advance: Advance | None = None,
) -> WriteResult:
    """Write the samples of each split, in order, into ``<folder>/<split>-000000.tar`` and so on, and the index.

    Args:
        splits: split name -> samples.
        folder: made if it is not there; shards that an index there lists are replaced.
        samples_per_shard: at least 1; the last shard of a split has the rest.
        on_error: whether a file that cannot be read stops the run or its sample is left out and listed.
        settings: kept in the index for the record.
        advance: called after each sample with (samples, bytes) done since the last call.

    Raises:
        FileError: a file cannot be read and ``on_error`` is "raise".
        OSError: the disk is full; the message names the shard.
    """
    if samples_per_shard < 1:
        raise ValueError(f"samples_per_shard must be at least 1, got {samples_per_shard}.")
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    earlier = _retire_index(root)
    journal = Journal(root)
    shards: dict[str, list[ShardInfo]] = {name: [] for name in splits}
    parts, kept = [], 0
    for split, path, samples in _planned(splits, samples_per_shard):
        plan = _fingerprint(samples, on_error)
        finished = journal.find(path, plan)
        kept += finished is not None
        info, contents = finished or _write_shard(root / path, samples, on_error, advance)
        if finished is None:
            journal.add(plan, info, contents)
        elif advance:
            advance(len(samples), info.bytes)
        if info.samples:
            shards[split].append(info)
        parts.append(contents)
    record = {"samples_per_shard": samples_per_shard, **(settings or {})}
    whole = total(parts)
    index = ShardIndex(shards, field_info(whole.fields, whole.field_bytes), dict(whole.class_counts), writer=record, root=root)
    index.save(root)
    journal.remove()
    _remove_stale(root, earlier, index)
    return WriteResult(index, whole.problems, kept)


def _planned(splits: Mapping[str, Sequence[SourceSample]], size: int) -> Iterator[tuple[str, str, Sequence[SourceSample]]]:
    for split, samples in splits.items():
        for number, start in enumerate(range(0, len(samples), size)):
            yield split, f"{split}-{number:06d}.tar", samples[start : start + size]


def _write_shard(path: Path, samples: Sequence[SourceSample], on_error: str, advance: Advance | None) -> tuple[ShardInfo, Contents]:
    try:
        with ShardFile(path) as shard:
            for sample in samples:
                size = _add(shard, sample, on_error)
                if advance:
                    advance(1, size)
    except OSError as error:
        needed = sum(file.size for sample in samples for file in sample.files.values())
        raise OSError(error.errno, f"{error.strerror}; the shard needs about {needed} bytes", str(path)) from error
    return shard.info, shard.contents


def _add(shard: ShardFile, sample: SourceSample, on_error: str) -> int:
    try:
        return shard.add(sample.key, sample.read())
    except FileError as error:
        if on_error == "raise":
            raise
        shard.contents.problems.append(str(error))
        return 0


def _fingerprint(samples: Sequence[SourceSample], on_error: str) -> str:
    """Return a hash of all that decides the bytes of a shard, without reading the files."""
    return hashlib.sha256(repr((on_error, list(samples))).encode()).hexdigest()


def _retire_index(root: Path) -> set[str]:
    """Remove an index, whose hashes are about to become wrong, and return the shards that it lists."""
    try:
        earlier = {shard.path for shards in ShardIndex.load(root).splits.values() for shard in shards}
    except ValueError:
        earlier = set()  # none, or one that nobody can use
    (root / FILE_NAME).unlink(missing_ok=True)
    return earlier


def _remove_stale(root: Path, earlier: set[str], index: ShardIndex) -> None:
    for path in earlier - {shard.path for shards in index.splits.values() for shard in shards}:
        (root / path).unlink(missing_ok=True)
