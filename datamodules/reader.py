"""Read chosen samples from a local shard, sequentially. Nothing is extracted to disk and nothing in a shard is executed."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from multimodal.errors import SampleError

_BUFFER_BYTES = 65536
_EVERY_FIELD = "*"
_DAMAGE = (OSError, tarfile.TarError, ValueError, OverflowError, MemoryError)  # the last three: numbers in damaged headers


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


@dataclass
class _Group:
    """The members of one key, not read yet."""

    key: str
    members: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    problem: tuple[str, str] | None = None

    def add(self, name: str, member: tarfile.TarInfo) -> None:
        if not name:
            self.problem = (_EVERY_FIELD, f"the member {member.name!r} has no extension.")
        elif member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
            self.problem = (name, "not a plain file: links, folders, devices and sparse files are refused.")
        elif name in self.members:
            self.problem = (name, "the field is there twice.")
        self.members[name] = member


def read_samples(
    path: Path | str, positions: Sequence[int], expected: int, wanted: Container[str] | None = None
) -> Iterator[RawSample | SampleError]:
    """Yield one result for each position: the sample, or the error that stands in its place.

    Args:
        path: of the shard.
        positions: numbers of samples in the shard, ascending.
        expected: number of samples that the index promises.
        wanted: fields to read; None: all.
    """
    shard = str(path)
    found, remaining = 0, iter(positions)
    position = next(remaining, None)
    damage = ""
    try:
        with open(path, "rb", buffering=_BUFFER_BYTES) as file:
            for group in _groups(file) if position is not None else ():
                if found == position:
                    yield _read(shard, file, group, wanted)
                    position = next(remaining, None)
                found += 1
                if position is None:
                    return
    except _DAMAGE as error:
        damage = f" ({error})"
    while position is not None:
        reason = f"the index says {expected} samples, the shard holds {found}: it is cut off, damaged or was changed{damage}."
        yield SampleError(shard, f"sample number {position}", _EVERY_FIELD, reason)
        position = next(remaining, None)


def _groups(file: BinaryIO) -> Iterator[_Group]:
    """Yield the complete samples; one that the end of a cut-off file may have shortened is not complete.

    Raises:
        tarfile.ReadError: the file ends before the end of the archive, or a header is damaged.
    """
    size = os.fstat(file.fileno()).st_size
    archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (the file is closed by the caller)
    group: _Group | None = None
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # else all headers stay in memory
        if not 0 <= member.size <= size - member.offset_data:  # before anything of that size is allocated
            raise tarfile.ReadError("unexpected end of data")
        key, name = _split_name(member.name)
        if group is not None and group.key != key:
            yield group
            group = None
        group = group or _Group(key)
        group.add(name, member)
    file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile takes a missing end and a damaged header for the end
        raise tarfile.ReadError(f"no valid header at byte {archive.offset}")
    if group is not None:
        yield group


def _split_name(name: str) -> tuple[str, str]:
    """Return key and field as webdataset does: the field is all after the first dot of the last part."""
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return folder + slash + stem, extension.lower()


def _read(shard: str, file: BinaryIO, group: _Group, wanted: Container[str] | None) -> RawSample | SampleError:
    if group.problem:
        return SampleError(shard, group.key, *group.problem)
    fields = {}
    for name, member in group.members.items():
        if wanted is None or name in wanted:
            file.seek(member.offset_data)
            fields[name] = file.read(member.size)
    return RawSample(shard, group.key, fields, tuple(group.members))
