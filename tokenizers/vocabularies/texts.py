"""The lines of texts, wherever they lie, read again for each pass and never all at once."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from multimodal.datamodules.shards.index import FILE_NAME, ShardIndex
from multimodal.datamodules.shards.reader import read_samples
from multimodal.errors import SampleError

EXTENSION = "txt"
BYTE_ORDER_MARK = "\ufeff"
LONGEST = 1 << 20
"""Characters of a line that are read at once: a longer one comes in pieces."""


class Texts:
    """The lines of text files and of fields ``txt`` of shards, in UTF-8, with their line ends; empty ones are left out.

    Args:
        sources: text files, folders with an ``index.json`` (shards), or other folders, whose files ``*.txt`` are taken at any depth.
        split: of shards.

    Raises:
        ValueError: a source that is not there, a folder without texts, or shards without the split or without texts.
    """

    def __init__(self, sources: Sequence[str | Path], split: str = "train") -> None:
        if not sources:
            raise ValueError("sources is empty: name at least one file or folder.")
        self.split = split
        self._sources = [self._opened(Path(source)) for source in sources]

    def _opened(self, source: Path) -> ShardIndex | list[Path]:
        if source.is_file():
            return [source]
        if not source.is_dir():
            raise ValueError(f"{source} does not exist: give text files, folders of them, or folders of shards.")
        if (source / FILE_NAME).is_file():
            return self._checked(ShardIndex.load(source), source)
        files = sorted(path for path in source.rglob(f"*.{EXTENSION}") if path.is_file())
        if not files:
            raise ValueError(f"{source} holds no file *.{EXTENSION}, and no {FILE_NAME} of shards.")
        return files

    def _checked(self, index: ShardIndex, source: Path) -> ShardIndex:
        if not index.shards(self.split):
            raise ValueError(f"{source} has no split {self.split!r}: one of {', '.join(index.splits)}.")
        if not _fields(index):
            raise ValueError(f"{source} has no field {EXTENSION!r}: its fields are {', '.join(sorted(index.fields))}.")
        return index

    def __iter__(self) -> Iterator[str]:
        """Yield the lines.

        Raises:
            ValueError: a text that is not UTF-8; the message names file and line, or shard, key and field.
        """
        for source in self._sources:
            if isinstance(source, ShardIndex):
                yield from _of_shards(source, self.split)
            else:
                for path in source:
                    yield from _of_file(path)


def _fields(index: ShardIndex) -> set[str]:
    """Return the fields that hold texts: ``txt``, and those like ``en.txt``."""
    return {name for name in index.fields if name.rpartition(".")[-1] == EXTENSION}


def _of_file(path: Path) -> Iterator[str]:
    read = 0
    with path.open("rb") as file:
        try:
            for line in _lines(file):
                read += 1
                if line.strip():
                    yield line
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: after line {read} or later: {_not_utf8(error)}") from None


def _of_shards(index: ShardIndex, split: str) -> Iterator[str]:
    wanted = _fields(index)
    for shard in index.shards(split):
        location = index.location(shard)
        for sample in read_samples(location, range(shard.samples), shard.samples, wanted):
            if isinstance(sample, SampleError):
                raise sample
            for name, data in sorted(sample.fields.items()):
                if name in wanted:
                    yield from _of_field(data, location, sample.key, name)


def _of_field(data: bytes, shard: str, key: str, name: str) -> Iterator[str]:
    try:
        for line in _lines(io.BytesIO(data)):
            if line.strip():
                yield line
    except UnicodeDecodeError as error:
        raise SampleError(shard, key, name, _not_utf8(error)) from None


def _lines(file: io.BufferedReader | io.BytesIO) -> Iterator[str]:
    """Yield the lines of a file, the first without a byte order mark."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
    first = True
    while line := text.readline(LONGEST):
        yield line.removeprefix(BYTE_ORDER_MARK) if first else line
        first = False


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8: byte 0x{error.object[error.start]:02x} ({error.reason})."
