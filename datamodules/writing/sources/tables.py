"""Rows of a table: CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]
_ROWS_AT_ONCE = 1024
_MAX_CELL_CHARACTERS = 1 << 27


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (number of the row, from 1, without the header; column -> value, None for an empty cell).

    Args:
        path: the table; its extension says what it is.

    Raises:
        ValueError: an unknown extension, no such file, or a damaged table; the message names the line.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: a manifest ends in {', '.join(READERS)}, not in {path.suffix!r}.")
    if not path.is_file():
        raise ValueError(f"{path} is not a file.")
    try:
        for number, row in enumerate(reader(path), 1):
            yield number, {name: None if _empty(value) else value for name, value in row.items()}
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from None


def _empty(value: Any) -> bool:
    return value == "" or (isinstance(value, float) and math.isnan(value))  # the latter is how pandas writes an absent text


def _csv(path: Path) -> Iterator[Row]:
    return _separated(path, ",")


def _tsv(path: Path) -> Iterator[Row]:
    return _separated(path, "\t")


def _separated(path: Path, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(_MAX_CELL_CHARACTERS)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        names = next(reader, [])
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{path}: the first line must name the columns, each once; it is {delimiter.join(names)!r}.")
        for cells in reader:
            if cells and len(cells) != len(names):
                raise ValueError(f"{path}, line {reader.line_num}: {len(cells)} cells, the header names {len(names)} columns.")
            if cells:
                yield dict(zip(names, cells, strict=True))


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error}).") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: not a JSON object.")
            yield row


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ValueError(f"{path}: Parquet needs pyarrow: pip install 'multimodal[parquet]'.") from None
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                yield from batch.to_pylist()
    except ArrowException as error:
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
}
"""Extension -> reader of such a table."""
