"""Write samples into tar shards that plain webdataset reads; the same samples give the same bytes.

A shard gets its name when it is complete. What is finished is noted in a journal, so that the same command after an interruption goes on
where it stopped; the index is written last, and a folder without one is unfinished.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from multimodal.datamodules.atomic import atomic_file
from multimodal.datamodules.index import FILE_NAME, ShardIndex, ShardInfo
from multimodal.datamodules.sources import METADATA, FileError, SourceSample

JOURNAL_NAME = ".unfinished.jsonl"
_END_OF_ARCHIVE = bytes(2 * tarfile.BLOCKSIZE)

Advance = Callable[[int, int], None]
"""Told the number of samples and bytes after each sample."""


@dataclass
class _Contents:
    """What one shard holds."""

    fields: Counter[str] = field(default_factory=Counter)
    field_bytes: Counter[str] = field(default_factory=Counter)
    class_counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    samples: int = 0

    def add(self, fields: Mapping[str, bytes]) -> None:
        self.samples += 1
        for name, data in fields.items():
            self.fields[name] += 1
            self.field_bytes[name] += len(data)
        label = json.loads(fields[METADATA]).get("label")
        if label is not None:
            self.class_counts[label] += 1


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
    journal = _Journal(root)
    shards: dict[str, list[ShardInfo]] = {name: [] for name in splits}
    total, kept = _Contents(), 0
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
        _merge(total, contents)
    record = {"samples_per_shard": samples_per_shard, **(settings or {})}
    index = ShardIndex(shards, dict(total.fields), dict(total.field_bytes), dict(total.class_counts), record, root=root)
    index.save(root)
    journal.remove()
    _remove_stale(root, earlier, index)
    return WriteResult(index, total.problems, kept)


def _planned(splits: Mapping[str, Sequence[SourceSample]], size: int) -> Iterator[tuple[str, str, Sequence[SourceSample]]]:
    for split, samples in splits.items():
        for number, start in enumerate(range(0, len(samples), size)):
            yield split, f"{split}-{number:06d}.tar", samples[start : start + size]


def _write_shard(path: Path, samples: Sequence[SourceSample], on_error: str, advance: Advance | None) -> tuple[ShardInfo, _Contents]:
    contents, digest, size = _Contents(), hashlib.sha256(), 0
    try:
        with atomic_file(path) as file:
            for sample in samples:
                data = _sample_bytes(sample, contents, on_error)
                digest.update(data)
                size += _write(file, data)
                if advance:
                    advance(1, len(data))
            digest.update(_END_OF_ARCHIVE)
            size += _write(file, _END_OF_ARCHIVE)
    except OSError as error:
        needed = sum(file.size for sample in samples for file in sample.files.values())
        raise OSError(error.errno, f"{error.strerror}; the shard needs about {needed} bytes", str(path)) from error
    if not contents.samples:
        path.unlink()
    return ShardInfo(path.name, contents.samples, size, digest.hexdigest()), contents


def _write(file: BinaryIO, data: bytes) -> int:
    file.write(data)
    return len(data)


def _sample_bytes(sample: SourceSample, contents: _Contents, on_error: str) -> bytes:
    try:
        fields = sample.read()
    except FileError as error:
        if on_error == "raise":
            raise
        contents.problems.append(str(error))
        return b""
    contents.add(fields)
    return b"".join(_member(f"{sample.key}.{name}", data) for name, data in fields.items())


def _member(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)  # owner 0, mode 0644, time 0: nothing of this machine or moment
    info.size = len(data)
    return info.tobuf(tarfile.PAX_FORMAT, encoding="utf-8") + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _merge(total: _Contents, contents: _Contents) -> None:
    total.fields.update(contents.fields)
    total.field_bytes.update(contents.field_bytes)
    total.class_counts.update(contents.class_counts)
    total.problems += contents.problems


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


class _Journal:
    """Shards that are finished, one JSON object a line; it exists until the index does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / JOURNAL_NAME
        self.lines: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                self._remember(line)

    def _remember(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self.lines[entry["info"]["path"]] = entry
        except (ValueError, KeyError, TypeError):
            pass  # the line that was being written when the run was killed: that shard is written again

    def find(self, path: str, plan: str) -> tuple[ShardInfo, _Contents] | None:
        """Return what is in a shard if it was finished with this plan and its file still has those bytes."""
        entry = self.lines.get(path)
        if entry is None or entry["plan"] != plan:
            return None
        info = ShardInfo(**entry["info"])
        fields, field_bytes, class_counts = (Counter(part) for part in entry["counts"])
        contents = _Contents(fields, field_bytes, class_counts, entry["problems"], info.samples)
        file = self.root / path
        if info.samples and not (file.is_file() and file_sha256(file) == info.sha256):
            return None
        return info, contents

    def add(self, plan: str, info: ShardInfo, contents: _Contents) -> None:
        counts = [contents.fields, contents.field_bytes, contents.class_counts]
        entry = {"plan": plan, "info": asdict(info), "counts": counts, "problems": contents.problems}
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(entry))  # first ends a line cut off by a kill

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Return the hash of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
