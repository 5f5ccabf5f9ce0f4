"""Shards where they can be read: local ones as they are, others through a cache on the local disk."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from multimodal.datamodules.shards.index import ShardIndex, ShardInfo
from multimodal.datamodules.shards.keys import stable_hash
from multimodal.datamodules.shards.reader import ShardReader

MAX_OPEN = 128
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ShardCache:
    """Local copies of remote shards. A copy is made when a sample of the shard is wanted, checked against the index, and kept.

    Args:
        folder: of the copies; may be shared by all processes of a machine. None: ``~/.cache/multimodal/shards``.
        max_bytes: copies not read for the longest time go when there are more bytes than this; None: all stay.
        attempts: how often a download is tried before the shard counts as damaged.

    Raises:
        ValueError: a setting outside its range.
    """

    folder: str | None = None
    max_bytes: int | None = None
    attempts: int = 3

    def __post_init__(self) -> None:
        if self.max_bytes is not None and self.max_bytes < 1:
            raise ValueError(f"max_bytes of the cache must be at least 1, got {self.max_bytes}.")
        if self.attempts < 1:
            raise ValueError(f"attempts of the cache must be at least 1, got {self.attempts}.")

    @property
    def path(self) -> Path:
        """The folder of the copies."""
        return Path(self.folder).expanduser() if self.folder else Path.home() / ".cache" / "multimodal" / "shards"

    def fetch(self, url: str, info: ShardInfo) -> Path:
        """Return the local copy of a shard, which is made if it is not there.

        Raises:
            OSError: it cannot be fetched, or is not what the index says.
        """
        path = self.path / f"{stable_hash(url):016x}-{info.sha256[:16]}" / Path(info.path).name
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path):
            if path.is_file() and path.stat().st_size == info.bytes:
                os.utime(path)  # read now
                return path
            self._make_room(info.bytes)
            for attempt in range(self.attempts):
                try:
                    return _download(url, path, info)
                except OSError as error:
                    last = error
                    time.sleep(0.5 * 2**attempt if attempt + 1 < self.attempts else 0)
            raise last

    def _make_room(self, size: int) -> None:
        if self.max_bytes is None:
            return
        copies = sorted((file.stat().st_mtime, file.stat().st_size, file) for file in self.path.glob("*/*.tar"))
        held = sum(size for _, size, _ in copies) + size
        for _, bytes_, file in copies:
            if held <= self.max_bytes:
                return
            file.unlink(missing_ok=True)  # who has it open reads on
            held -= bytes_


class OpenShards:
    """The shards that one process has open; those not read for the longest time are closed.

    Args:
        sources: the indexes.
        split: which split of them.
        cache: for those that are not local.
        max_open: shards open at a time.
    """

    def __init__(self, sources: list[ShardIndex], split: str, cache: ShardCache, max_open: int = MAX_OPEN) -> None:
        self.sources, self.split, self.cache, self.max_open = sources, split, cache, max_open
        self._open: OrderedDict[tuple[int, int], ShardReader] = OrderedDict()

    def reader(self, source: int, shard: int) -> ShardReader:
        """Return the reader of a shard; one that cannot be fetched gives an error for each of its samples."""
        key = (source, shard)
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        info = self.sources[source].shards(self.split)[shard]
        name = self.sources[source].location(info)
        try:
            path = self.fetch(source, shard)
            reader = ShardReader(path, info.samples, name)
        except OSError as error:
            reader = ShardReader.unreadable(name, info.samples, str(error))
        self._open[key] = reader
        if len(self._open) > self.max_open:
            self._open.popitem(last=False)[1].close()
        return reader

    def fetch(self, source: int, shard: int) -> Path | str:
        """Return where a shard can be read.

        Raises:
            OSError: it is remote and cannot be fetched.
        """
        index = self.sources[source]
        info = index.shards(self.split)[shard]
        return self.cache.fetch(index.location(info), info) if index.url else index.location(info)

    def is_open(self, source: int, shard: int) -> bool:
        """Whether the process has read from a shard lately."""
        return (source, shard) in self._open

    def __reduce__(self) -> tuple[object, ...]:  # open files do not travel to other processes
        return OpenShards, (self.sources, self.split, self.cache, self.max_open)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Let one process of the machine at a time work on a file."""
    with path.with_name(path.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(url: str, path: Path, info: ShardInfo) -> Path:
    import fsspec

    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    digest = hashlib.sha256()
    try:
        with fsspec.open(url, "rb") as remote, temporary.open("wb") as local:
            while data := remote.read(_CHUNK):
                digest.update(data)
                local.write(data)
        if info.sha256 and digest.hexdigest() != info.sha256:
            raise ValueError(f"{temporary.stat().st_size} bytes that are not what the index says (another SHA-256)")
        os.replace(temporary, path)
    except Exception as error:  # each file system of fsspec has errors of its own
        raise OSError(f"{url}: {type(error).__name__}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path
