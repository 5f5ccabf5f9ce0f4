"""Samples as a scan finds them: small records that know how to read their fields."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multimodal.datamodules.shards.contents import METADATA, metadata_of
from multimodal.datamodules.shards.tar_header import member_size

_METADATA_BYTES = 100
_TEXT_SEPARATOR = b"\0"


class FileError(ValueError):
    """A file of the source cannot be used; the message names it."""


@dataclass(frozen=True)
class SourceFile:
    """A file as it was found: a change of size or time since then means other content.

    Args:
        path: where it is.
        size: bytes.
        changed_ns: time of the last change of its content, name or owner.
    """

    path: str
    size: int
    changed_ns: int

    @classmethod
    def at(cls, path: Path) -> SourceFile:
        """Look at a file.

        Raises:
            FileError: it is not there, unreadable, empty or no plain file.
        """
        try:
            status = path.stat()
        except OSError as error:
            raise FileError(f"{path}: {error.strerror}.") from None
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"{path}: not a plain file.")
        if status.st_size == 0:
            raise FileError(f"{path}: the file is empty.")
        return cls(str(path), status.st_size, _changed(status))

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            FileError: the file is unreadable or no longer what it was.
        """
        return _read(self.path, 0, self.size, self, whole=True)


@dataclass(frozen=True)
class ByteRange:
    """A part of a file.

    Args:
        file: the whole.
        offset: of the first byte.
        size: bytes.
    """

    file: SourceFile
    offset: int
    size: int

    @property
    def changed_ns(self) -> int:
        """Time of the last change of the whole file."""
        return self.file.changed_ns

    def read(self) -> bytes:
        """Return the bytes; see ``SourceFile.read``."""
        return _read(self.file.path, self.offset, self.size, self.file, whole=False)


@dataclass(frozen=True)
class InlineData:
    """Bytes that the scan has read, as those of a table's cell.

    Args:
        data: the bytes.
    """

    data: bytes
    changed_ns: int = 0

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self.data)

    def read(self) -> bytes:
        """Return the bytes."""
        return self.data


Piece = SourceFile | ByteRange | InlineData


class SourceSample(ABC):
    """A sample that can be read, in this process or another.

    Attributes:
        key: its name in the shard.
    """

    key: str

    @abstractmethod
    def read(self) -> dict[str, bytes]:
        """Return field -> bytes, in the order of the names.

        Raises:
            FileError: a file is unreadable, empty or no longer what the scan saw, or its metadata is not a JSON object.
        """

    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """Return what the metadata field holds; {} where there is none."""

    @property
    @abstractmethod
    def size(self) -> int:
        """About how many bytes the sample takes in a shard."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """What decides the sample, without the place and time of its files."""

    @property
    def changed_ns(self) -> int:
        """Time of the last change of its files; 0 where unknown."""
        return 0

    @property
    def data_sizes(self) -> tuple[tuple[str, int], ...] | None:
        """Field -> bytes, without the metadata; None where only reading tells. Samples of different sizes are not equal."""
        return None

    def data_hash(self) -> str:
        """Return a hash of all fields but the metadata, in hex.

        Raises:
            FileError: as those of ``read``.
        """
        digest = hashlib.sha256()
        for name, data in self.read().items():
            if name != METADATA:
                digest.update(b"%s %d%s" % (name.encode(), len(data), _TEXT_SEPARATOR))
                digest.update(data)
        return digest.hexdigest()


@dataclass(frozen=True)
class FileSample(SourceSample):
    """A sample made of files, parts of files and cells.

    Args:
        key: its name in the shard.
        source: what it was made of, for the metadata; "" for none.
        label: name of the class; None without one.
        files: field -> where its bytes are.
        columns: more entries of the metadata, which the sample's own metadata may replace.
        overrides: entries that replace those of the sample's own metadata.
    """

    key: str
    source: str
    label: str | None
    files: Mapping[str, Piece]
    columns: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def read(self) -> dict[str, bytes]:
        """Return field -> bytes; the metadata field holds the label, the source and the columns, unless its own file says otherwise."""
        fields = {name: piece.read() for name, piece in self.files.items()}
        own = fields.get(METADATA)
        content = self._merged(own)
        if content and (own is None or self._made()):  # otherwise its bytes stay as they are
            fields[METADATA] = json.dumps(content, ensure_ascii=True, sort_keys=True).encode()
        return dict(sorted(fields.items()))

    def metadata(self) -> dict[str, Any]:
        """Return what the metadata field holds."""
        own = self.files.get(METADATA)
        return self._merged(own.read() if own else None)

    @property
    def size(self) -> int:
        """About how many bytes the sample takes in a shard."""
        own = 0 if METADATA in self.files or not self._made() else member_size(_METADATA_BYTES)
        return own + sum(member_size(piece.size) for piece in self.files.values())

    @property
    def identity(self) -> str:
        """What decides the sample, without the place and time of its files."""
        cells = [(name, piece.data if isinstance(piece, InlineData) else piece.size) for name, piece in self.files.items()]
        return repr((self.key, self._made(), cells))

    @property
    def changed_ns(self) -> int:
        """Time of the last change of its files."""
        return max(piece.changed_ns for piece in self.files.values())

    @property
    def data_sizes(self) -> tuple[tuple[str, int], ...]:
        """Field -> bytes, without the metadata."""
        return tuple(sorted((name, piece.size) for name, piece in self.files.items() if name != METADATA))

    def _made(self) -> dict[str, Any]:
        said = {"source": self.source or None, "label": self.label}
        return {name: value for name, value in said.items() if value is not None} | dict(self.columns) | dict(self.overrides)

    def _merged(self, own: bytes | None) -> dict[str, Any]:
        made = self._made()
        if own is None:
            return made
        where = _name_of(self.files[METADATA])
        try:
            content = made | metadata_of(own) | self.overrides
        except ValueError as error:
            raise FileError(f"{where}: {error}") from None
        if made and not isinstance(content.get("label", ""), str):
            raise FileError(f"{where}: the label {content['label']!r} is not a string.")
        return content


def _name_of(piece: Piece) -> str:
    if isinstance(piece, ByteRange):
        return f"{piece.file.path} at byte {piece.offset}"
    return piece.path if isinstance(piece, SourceFile) else "the manifest"


def _changed(status: os.stat_result) -> int:
    return max(status.st_mtime_ns, status.st_ctime_ns)  # the second also tells of a file that was put in its place


def _read(path: str, offset: int, size: int, expected: SourceFile, whole: bool) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            status = os.fstat(descriptor)
            if status.st_size != expected.size or (not whole and _changed(status) != expected.changed_ns):
                raise FileError(f"{path}: had {expected.size} bytes when it was scanned, now {status.st_size}, or was written again.")
            data = os.pread(descriptor, size, offset)
            while len(data) < size:  # the system reads at most 2 GB at once
                more = os.pread(descriptor, size - len(data), offset + len(data))
                if not more:
                    raise FileError(f"{path}: ends before byte {offset + size}.")
                data += more
        finally:
            os.close(descriptor)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}.") from None
    return data
