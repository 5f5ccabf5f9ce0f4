"""Write one tar shard that plain webdataset reads; equal samples give equal bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from multimodal.atomic import atomic_file
from multimodal.datamodules.shards.contents import Contents
from multimodal.datamodules.shards.index import ShardInfo
from multimodal.datamodules.shards.tar_header import END_OF_ARCHIVE, member_header, padding


class ShardFile:
    """A shard being written; it gets its name when the block ends without an error and at least one sample was added.

    Args:
        path: of the shard.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.contents = Contents()
        self.bytes = 0
        self._digest = hashlib.sha256()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._file = self._stack.enter_context(atomic_file(self.path))
        return self

    def add(self, key: str, fields: Mapping[str, bytes]) -> int:
        """Write a sample, its fields in the order of their names, and return its size in the shard.

        Args:
            key: a clean one (``clean_key``).
            fields: field -> bytes.

        Raises:
            ValueError: the metadata field holds no JSON object; nothing was written.
        """
        self.contents.add(fields)
        parts: list[bytes] = []
        for name in sorted(fields):
            data = fields[name]
            parts += member_header(f"{key}.{name}", len(data)), data, padding(len(data))
        return self._write(b"".join(parts))

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._write(END_OF_ARCHIVE)
        self._stack.__exit__(*error)  # type: ignore[arg-type]
        if error[0] is None and not self.contents.samples:
            self.path.unlink()

    @property
    def info(self) -> ShardInfo:
        """The shard's line of the index, when it is written."""
        return ShardInfo(self.path.name, self.contents.samples, self.bytes, self._digest.hexdigest())

    def _write(self, data: bytes) -> int:
        self._digest.update(data)
        self._file.write(data)
        self.bytes += len(data)
        return len(data)


def file_sha256(path: Path) -> str:
    """Return the hash of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
