"""The rows of a data set of Hugging Face that ``save_to_disk`` wrote. Nothing is downloaded, and no script of the data set runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from multimodal.datamodules.shards.contents import METADATA
from multimodal.datamodules.shards.keys import clean_key
from multimodal.datamodules.writing.sources.field_names import FIELD_NAME, clean_place
from multimodal.datamodules.writing.sources.manifest import ROW_NUMBER, TEXT, Columns, plain_value
from multimodal.datamodules.writing.sources.samples import FileError, SourceSample
from multimodal.datamodules.writing.sources.scan import Scan
from multimodal.datamodules.writing.sources.signatures import extension_of

_SETTINGS = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}


@dataclass(frozen=True)
class RowLayout:
    """How the rows of a data set become samples.

    Args:
        files: columns of files (those whose type can be decoded), which become fields with the extension of the file.
        texts: columns that become fields ``txt``.
        label: column of the label; None without one.
        key: column of the keys; None: the number of the row.
        others: columns that go to the metadata.
    """

    files: tuple[str, ...]
    texts: tuple[str, ...]
    label: str | None
    key: str | None
    others: tuple[str, ...]

    def field(self, column: str, extension: str) -> str:
        """Return the name of a field: with the column in front where several columns are of its kind."""
        several = len(self.texts if column in self.texts else self.files) > 1
        return f"{clean_place(column)}.{extension}" if several else extension


@dataclass(frozen=True)
class DatasetRow(SourceSample):
    """A row, read when it is written.

    Args:
        key: name in the shard.
        folder: of the data set.
        fingerprint: of its contents, as Hugging Face computes it.
        row: number of the row, from 0.
        row_bytes: mean size of a row.
        layout: how it becomes a sample.
    """

    key: str
    folder: str
    fingerprint: str
    row: int
    row_bytes: int
    layout: RowLayout

    def read(self) -> dict[str, bytes]:
        """Return field -> bytes, as they are stored: nothing is decoded."""
        row = _open(self.folder)[self.row]
        fields: dict[str, bytes] = {}
        for column in self.layout.files:
            if row[column] is not None:
                data, extension = _stored(f"{self._where}, column {column!r}", row[column])
                fields[self.layout.field(column, extension)] = data
        for column in self.layout.texts:
            if row[column] is not None:
                fields[self.layout.field(column, TEXT)] = str(row[column]).encode("utf-8", "replace")
        if not fields:
            raise FileError(f"{self._where}: no file or text.")
        fields[METADATA] = json.dumps(self._described(row), ensure_ascii=True, sort_keys=True).encode()
        return dict(sorted(fields.items()))

    def metadata(self) -> dict[str, Any]:
        """Return what the metadata field holds."""
        return self._described(_open(self.folder)[self.row])

    @property
    def size(self) -> int:
        """About how many bytes the sample takes in a shard: the mean over the data set."""
        return self.row_bytes + 1024 * (1 + len(self.layout.files) + len(self.layout.texts))

    @property
    def identity(self) -> str:
        """What decides the sample: the data set's own fingerprint."""
        return repr((self.key, self.fingerprint, self.row, self.layout))

    @property
    def _where(self) -> str:
        return f"{self.folder}, row {self.row}"

    def _described(self, row: Mapping[str, Any]) -> dict[str, Any]:
        content = {name: plain_value(f"{self._where}, column {name!r}", row[name]) for name in self.layout.others if row[name] is not None}
        label = None if self.layout.label is None else _label_name(self.folder, self.layout.label, row[self.layout.label])
        return {"source": f"{Path(self.folder).name}:{self.row}"} | content | ({} if label is None else {"label": label})


def scan_huggingface(folder: Path | str, columns: Columns | None = None) -> Scan:
    """Find the samples of a data set on disk. The splits of a ``DatasetDict`` stay.

    Columns of files are those whose type Hugging Face can decode; their bytes are taken as they are stored.

    Args:
        folder: that ``save_to_disk`` wrote.
        columns: key, label and texts; the label is by default the column ``label``, or the only one of type ``ClassLabel``.

    Raises:
        ValueError: no data set, ``datasets`` is not installed, or unknown columns.
    """
    folder, columns = Path(folder), columns or Columns()
    scan = Scan("huggingface")
    for split, part in _parts(folder).items():
        dataset = _open(str(part))
        layout = _layout(part, dataset.features, columns)
        keys = dataset[layout.key] if layout.key is not None else None
        row_bytes = dataset.data.nbytes // max(1, len(dataset))
        for number in range(len(dataset)):
            name = f"{number:08d}" if keys is None else clean_key(str(keys[number]))
            key = f"{split}/{name}" if split is not None and keys is None else name
            scan.add(DatasetRow(key, str(part), dataset._fingerprint, number, row_bytes, layout), split)
        taken = f"columns of files: {', '.join(layout.files) or 'none'}, of texts: {', '.join(layout.texts) or 'none'}"
        if taken not in scan.notes:
            scan.notes.append(taken)
    if not scan.samples:
        raise ValueError(f"{folder} has no rows.")
    return scan


def is_dataset(folder: Path) -> bool:
    """Return whether ``save_to_disk`` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or ((folder / "state.json").is_file() and (folder / "dataset_info.json").is_file())


def _parts(folder: Path) -> dict[str | None, Path]:
    if not is_dataset(folder):
        raise ValueError(f"{folder} is no data set that save_to_disk of Hugging Face wrote.")
    listing = folder / "dataset_dict.json"
    if not listing.is_file():
        return {None: folder}
    try:
        names = json.loads(listing.read_bytes())["splits"]
        return {str(name): folder / Path(str(name)).name for name in names}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{listing} is damaged ({type(error).__name__}: {error}).") from None


@lru_cache(maxsize=8)
def _open(folder: str) -> Any:
    """Return a data set with its files as stored bytes; once in each process."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import datasets
    except ImportError:
        raise ValueError(f"{folder}: Hugging Face data sets need `datasets`: pip install 'multimodal[huggingface]'.") from None
    try:
        dataset = datasets.load_from_disk(folder)
    except Exception as error:  # damage ends in errors of Arrow, of JSON and of datasets
        raise ValueError(f"{folder} cannot be read: {type(error).__name__}: {error}") from None
    for name, feature in dataset.features.items():
        if _is_file(feature):
            dataset = dataset.cast_column(name, type(feature)(decode=False))
    return dataset


def _is_file(feature: Any) -> bool:
    return hasattr(feature, "decode_example") and hasattr(feature, "decode")


def _layout(folder: Path, features: Mapping[str, Any], columns: Columns) -> RowLayout:
    for name in (columns.key if columns.key != ROW_NUMBER else None, columns.label, *columns.texts):
        if name is not None and name not in features:
            raise ValueError(f"{folder} has no column {name!r}; it has {', '.join(features)}.")
    files = tuple(name for name, feature in features.items() if _is_file(feature))
    if not files and not columns.texts:
        raise ValueError(f"{folder} has no column of files (columns: {', '.join(features)}); give --text-columns.")
    classes = [name for name, feature in features.items() if hasattr(feature, "int2str")]
    label = columns.label or ("label" if "label" in features else classes[0] if len(classes) == 1 else None)
    key = columns.key or ("key" if "key" in features else None)
    key = None if key == ROW_NUMBER and ROW_NUMBER not in features else key
    others = tuple(name for name in features if name not in {*files, *columns.texts, label})
    return RowLayout(files, tuple(columns.texts), label, key, others)


def _label_name(folder: str, column: str, value: Any) -> str | None:
    if value is None:
        return None
    feature = _open(folder).features[column]
    if not hasattr(feature, "int2str"):
        return str(value)
    return str(feature.int2str(value)) if value >= 0 else None  # -1 stands for an unknown class


def _stored(where: str, value: Any) -> tuple[bytes, str]:
    """Return bytes and extension of a file that a cell holds, or names."""
    data, path = value.get("bytes"), value.get("path")
    if data is None:
        try:
            data = Path(path).read_bytes()
        except (OSError, TypeError) as error:
            raise FileError(f"{where}: the file {path!r} cannot be read ({error}).") from None
    extension = extension_of(data) or os.path.splitext(path or "")[1][1:].lower()
    if not data or not FIELD_NAME.fullmatch(extension):
        raise FileError(f"{where}: {'empty' if not data else 'neither its name nor its first bytes say what kind of file it is'}.")
    return data, extension
