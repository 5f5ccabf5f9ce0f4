"""A table with one sample a row: columns of paths become fields, columns of texts too if asked for, the others are metadata."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from multimodal.datamodules.shards.contents import METADATA, TAGS, tags_of
from multimodal.datamodules.shards.keys import clean_key
from multimodal.datamodules.writing.sources.field_names import COMPOUND_NAME, field_of, shared_extensions
from multimodal.datamodules.writing.sources.samples import FileError, FileSample, InlineData, Piece, SourceFile
from multimodal.datamodules.writing.sources.scan import OnError, Scan
from multimodal.datamodules.writing.sources.tables import Row, read_rows

ROW_NUMBER = "row"
TEXT = "txt"
_LOOKED_AT = 100


@dataclass(frozen=True)
class Columns:
    """Which column of a table is what.

    Args:
        key: names the samples; "row" where there is no such column: the number of the row. None: the column ``key``, else the path of the
            first file, without its extension.
        label: name of the class; None: the column ``label`` if there is one.
        labels: names of several classes of a sample: a list, or a text with ``separator`` between them. None: there is no such column.
        separator: between these names; a text that is nothing else names none.
        split: name of the split; None: none.
        paths: of files; None: those in which at least half of the first 100 values name files.
        texts: become fields ``txt``.
    """

    key: str | None = None
    label: str | None = None
    labels: str | None = None
    separator: str = "|"
    split: str | None = None
    paths: Sequence[str] | None = None
    texts: Sequence[str] = ()


def scan_manifest(path: Path | str, columns: Columns | None = None, root: Path | str | None = None, on_error: OnError = "raise") -> Scan:
    """Find the samples that a table lists.

    A path is taken as the manifest has it: absolute, or relative to ``root``, also upwards. Where a cell is empty, there is no field.

    Args:
        path: CSV, TSV, JSON lines or Parquet.
        columns: which column is what.
        root: folder that paths are relative to; None: the folder of the manifest.
        on_error: whether a missing, empty or unreadable file stops the scan or is left out and listed.

    Raises:
        ValueError: an unknown column, no column of paths or texts, or two rows with one key.
        FileError: a file cannot be used.
    """
    path = Path(path)
    rows = list(read_rows(path))
    if not rows:
        raise ValueError(f"{path} has no rows.")
    roles = _Roles.of(path, rows, columns or Columns(), Path(root) if root else path.parent)
    scan = Scan("manifest", notes=[roles.note])
    keys: dict[str, int] = {}
    for number, row in rows:
        sample = roles.sample(number, row, scan, on_error)
        if sample is None:
            continue
        if keys.setdefault(sample.key, number) != number:
            raise ValueError(
                f"{path}: rows {keys[sample.key]} and {number} have the key {sample.key!r}: "
                f"name a column without repetitions with --key-column, or number the rows with --key-column {ROW_NUMBER}."
            )
        scan.add(sample, roles.split(number, row))
    if not scan.samples:
        raise ValueError(f"{path}: none of its {len(rows)} rows has a usable file or text; the first problem: {scan.problems[0]}")
    return scan


@dataclass(frozen=True)
class _Roles:
    """The columns of one table, checked against its rows."""

    manifest: Path
    root: Path
    columns: Columns
    paths: tuple[str, ...]
    shared: frozenset[str]
    others: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, rows: Sequence[tuple[int, Row]], columns: Columns, root: Path) -> _Roles:
        names = list(dict.fromkeys(name for _, row in rows for name in row))
        asked = [columns.key, columns.label, columns.labels, columns.split, *(columns.paths or ()), *columns.texts]
        for name in asked:
            if name is not None and name not in names and not (name == ROW_NUMBER and name == columns.key):
                raise ValueError(f"{path} has no column {name!r}; it has {', '.join(names)}.")
        texts = set(columns.texts)
        found = (
            columns.paths if columns.paths is not None else [name for name in names if name not in texts and _names_files(name, rows, root)]
        )
        if not found and not texts:
            raise ValueError(
                f"{path}: no column holds paths of files below {root} (columns: {', '.join(names)}); "
                "give --root, --path-columns or --text-columns."
            )
        extensions = {name: {_extension(row[name]) for _, row in rows if row.get(name) is not None} for name in found}
        extensions |= {name: {TEXT} for name in columns.texts}
        used = {*found, *columns.texts, columns.label or "label", columns.split}
        used |= {columns.labels, TAGS} if columns.labels else set()
        others = tuple(name for name in names if name not in used)
        return cls(path, root, columns, tuple(found), shared_extensions(extensions), others)

    @property
    def note(self) -> str:
        texts = f"; of texts: {', '.join(self.columns.texts)}" if self.columns.texts else ""
        others = f"; metadata: {', '.join(self.others)}" if self.others else ""
        return f"columns of paths: {', '.join(self.paths) or 'none'}{texts}{others}"

    def sample(self, number: int, row: Row, scan: Scan, on_error: OnError) -> FileSample | None:
        """Return the sample of a row; None where none of its files can be used."""
        where = f"{self.manifest}, row {number}"
        files: dict[str, Piece] = {}
        for name in (*self.paths, *self.columns.texts):
            if row.get(name) is None:
                continue
            try:
                field, piece = self._piece(name, row[name])
                if field in files:
                    raise FileError(f"column {name!r} gives a second field {field!r}.")
                files[field] = piece
            except FileError as error:
                scan.refuse(f"{where}: {error}", on_error)
        if not files or (METADATA in files and len(files) == 1):
            scan.refuse(f"{where}: no file or text.", on_error)
            return None
        label = self._label(row)
        more = self._columns(where, row) | self._tags(where, row)
        return FileSample(self._key(number, row), f"{self.manifest.name}:{number}", label, files, more)

    def split(self, number: int, row: Row) -> str | None:
        """Return the split that a row says."""
        name = self.columns.split
        if name is None:
            return None
        value = row.get(name)
        if not isinstance(value, str) or not value.replace("_", "").isalnum() or not value.isascii():
            raise ValueError(f"{self.manifest}, row {number}: the split {value!r} is not a name of letters, digits and _.")
        return value

    def _piece(self, column: str, value: Any) -> tuple[str, Piece]:
        if column in self.columns.texts:
            if not isinstance(value, str):
                raise FileError(f"column {column!r} holds {value!r}, not a text.")
            return field_of(column, TEXT, self.shared), InlineData(value.encode("utf-8", "replace"))
        field = field_of(column, _extension(value), self.shared)
        if not COMPOUND_NAME.fullmatch(field):
            raise FileError(f"column {column!r}: {value!r} is no path of a file with an extension of letters, digits, '_', '+' and '-'.")
        return field, SourceFile.at(self.root / value)

    def _key(self, number: int, row: Row) -> str:
        name = self.columns.key or ("key" if row.get("key") is not None else None)
        if name == ROW_NUMBER and name not in row:
            return f"{number:08d}"
        if name is not None:
            if row.get(name) is None:
                raise ValueError(f"{self.manifest}, row {number}: the column {name!r} of the keys is empty.")
            return clean_key(str(row[name]))
        first = next((row[column] for column in self.paths if row.get(column) is not None), None)
        if first is None:
            return f"{number:08d}"
        stem = PurePosixPath(Path(os.path.normpath(first)).as_posix()).with_suffix("")
        inside = stem.relative_to(self.root.as_posix()) if stem.is_relative_to(self.root.as_posix()) else stem
        return clean_key(str(inside))

    def _label(self, row: Row) -> str | None:
        value = row.get(self.columns.label or "label")
        return None if value is None else str(value)

    def _tags(self, where: str, row: Row) -> dict[str, Any]:
        name = self.columns.labels
        if name is None or row.get(name) is None:
            return {}
        value = row[name]
        parts = [part.strip() for part in value.split(self.columns.separator)] if isinstance(value, str) else value
        found = {TAGS: [part for part in parts if part] if isinstance(value, str) else parts}
        try:
            tags_of(found)
        except ValueError as error:
            raise ValueError(f"{where}, column {name!r}: {error}") from None
        return found

    def _columns(self, where: str, row: Row) -> dict[str, Any]:
        there = (name for name in self.others if row.get(name) is not None)
        return {name: plain_value(f"{where}, column {name!r}", row[name]) for name in there}


def plain_value(where: str, value: Any) -> Any:
    """Return a cell as JSON can hold it: times become ISO text.

    Raises:
        ValueError: it cannot be written as JSON.
    """
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    try:
        json.dumps(value, allow_nan=True)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: a value of type {type(value).__name__} has no form in JSON.") from None
    return value


def _names_files(column: str, rows: Sequence[tuple[int, Row]], root: Path) -> bool:
    values = list(islice((row[column] for _, row in rows if row.get(column) is not None), _LOOKED_AT))
    files = sum(isinstance(value, str) and "." in value and os.path.isfile(root / value) for value in values if "\0" not in str(value))
    return files > 0 and 2 * files >= len(values)


def _extension(value: Any) -> str:
    return os.path.splitext(value)[1][1:].lower() if isinstance(value, str) else ""
