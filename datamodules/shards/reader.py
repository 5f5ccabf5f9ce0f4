"""Read samples of a local shard, at any position. Nothing is extracted to disk and nothing in a shard is executed."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from multimodal.datamodules.shards.members import Member, members
from multimodal.errors import SampleError

_EVERY_FIELD = "*"
_DAMAGE = (OSError, tarfile.TarError, ValueError, OverflowError, MemoryError)  # the last three: numbers in damaged headers
_GAP_BYTES = 65536


@dataclass(frozen=True)
class RawSample:
    """The files of one key.

    Args:
        shard: path of the shard.
        key: name of the sample.
        fields: field (extension, lower case) -> bytes, of the fields asked for.
        names: all fields that the sample has.
    """

    shard: str
    key: str
    fields: dict[str, bytes]
    names: tuple[str, ...]


class _Entry(NamedTuple):
    """Where the fields of one key lie in the shard: field -> (offset, size)."""

    key: str
    fields: dict[str, tuple[int, int]]
    problem: tuple[str, str] | None


class ShardReader:
    """The samples of one shard. Opening it looks at all headers once; a sample is then one read at its place.

    Args:
        path: of the shard.
        expected: number of samples that the index promises; asked for one that is not there, the reader says so.
        name: how messages call the shard; None: its path.
    """

    def __init__(self, path: Path | str, expected: int, name: str | None = None) -> None:
        self.name, self.expected = name or str(path), expected
        self.entries: list[_Entry] = []
        self.damage = self.failure = ""
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_WILLNEED)  # the disk reads it in one go
            self.entries.extend(_entries(self._descriptor))
        except _DAMAGE as error:
            self.damage = f" ({error})"

    @classmethod
    def unreadable(cls, name: str, expected: int, reason: str) -> ShardReader:
        """Return the reader of a shard that cannot be had: each of its samples is an error with the reason."""
        reader = cls(os.devnull, expected, name)
        reader.failure = reason
        return reader

    def __len__(self) -> int:
        return len(self.entries)

    def key(self, position: int) -> str:
        """Return the key of a sample; "" where there is none."""
        return self.entries[position].key if 0 <= position < len(self) else ""

    def read(self, position: int, wanted: Container[str] | None = None) -> RawSample | SampleError:
        """Return a sample, or the error that stands in its place.

        Args:
            position: number of the sample in the shard, from 0.
            wanted: fields to read; None: all.
        """
        if self.failure:
            return SampleError(self.name, f"sample number {position}", _EVERY_FIELD, f"the shard cannot be had: {self.failure}.")
        if not 0 <= position < len(self.entries):
            reason = (
                f"the index says {self.expected} samples, the shard holds {len(self)}: it is cut off, damaged or was changed{self.damage}."
            )
            return SampleError(self.name, f"sample number {position}", _EVERY_FIELD, reason)
        entry = self.entries[position]
        if entry.problem:
            return SampleError(self.name, entry.key, *entry.problem)
        places = {name: place for name, place in entry.fields.items() if wanted is None or name in wanted}
        try:
            return RawSample(self.name, entry.key, self._read(places), tuple(entry.fields))
        except OSError as error:
            return SampleError(self.name, entry.key, _EVERY_FIELD, f"cannot be read: {error}.")

    def _read(self, places: dict[str, tuple[int, int]]) -> dict[str, bytes]:
        """Read fields: in one go where they lie close together, as the fields of a sample do."""
        start = min((offset for offset, _ in places.values()), default=0)
        end = max((offset + size for offset, size in places.values()), default=0)
        if end - start <= sum(size for _, size in places.values()) + _GAP_BYTES:
            data = self._bytes(start, end - start)
            return {name: data[offset - start : offset - start + size] for name, (offset, size) in places.items()}
        return {name: self._bytes(offset, size) for name, (offset, size) in places.items()}

    def _bytes(self, offset: int, size: int) -> bytes:
        parts = []
        while size > 0:
            part = os.pread(self._descriptor, size, offset)
            if not part:
                raise OSError("the shard has become shorter")
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def __del__(self) -> None:
        self.close()


def read_samples(
    path: Path | str, positions: Sequence[int], expected: int, wanted: Container[str] | None = None
) -> Iterator[RawSample | SampleError]:
    """Yield one result for each position: the sample, or the error that stands in its place.

    Args:
        path: of the shard.
        positions: numbers of samples in the shard, in any order.
        expected: number of samples that the index promises.
        wanted: fields to read; None: all.
    """
    reader = ShardReader(path, expected)
    try:
        for position in positions:
            yield reader.read(position, wanted)
    finally:
        reader.close()


@dataclass
class _Group:
    """The members of one key so far."""

    key: str
    fields: dict[str, tuple[int, int]] = field(default_factory=dict)
    problem: tuple[str, str] | None = None

    def add(self, name: str, member: Member) -> None:
        if not name:
            self.problem = (_EVERY_FIELD, f"the member {member.name!r} has no extension.")
        elif not member.plain:
            self.problem = (name, "not a plain file: links, devices and sparse files are refused.")
        elif name in self.fields:
            self.problem = (name, "the field is there twice.")
        self.fields[name] = (member.offset, member.size)


def _entries(descriptor: int) -> Iterator[_Entry]:
    """Yield the complete samples; one that the end of a cut-off file may have shortened is not complete.

    Raises:
        tarfile.ReadError: the file ends before the end of the archive, or a header is damaged.
    """
    group: _Group | None = None
    for member in members(descriptor):
        key, name = split_name(member.name)
        if group is not None and group.key != key:
            yield _Entry(group.key, group.fields, group.problem)
            group = None
        group = group or _Group(key)
        group.add(name, member)
    if group is not None:
        yield _Entry(group.key, group.fields, group.problem)


def split_name(name: str) -> tuple[str, str]:
    """Return key and field as webdataset does: the field is all after the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return folder + slash + stem, extension.lower()
