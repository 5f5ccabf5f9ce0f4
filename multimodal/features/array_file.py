"""Features of a split as one ``.npy`` file that can be mapped into memory, with the keys of its rows beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from multimodal.atomic import atomic_file
from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.features.reader import FeatureReader, split_features
from multimodal.features.shards import Precision, as_stored, stored_type


@dataclass(frozen=True)
class WrittenArray:
    """What was written of a split.

    Args:
        path: of the ``.npy`` file.
        shape: of the array; its first axis are the items.
        left_out: samples of the split without a row: bad ones, and those without the modality.
    """

    path: Path
    shape: tuple[int, ...]
    left_out: int


def write_feature_array(
    reader: FeatureReader,
    data: ShardDataModule,
    split: str,
    folder: Path,
    precision: Precision = "float32",
    listener: Callable[[int], object] | None = None,
) -> WrittenArray:
    """Write ``<split>.npy`` and ``<split>.keys.txt``, rows in the order of the shards; each appears when it is whole.

    Rows go to the disk batch by batch, so that only one batch is in memory; labels are those of ``<split>.labels.npy`` (int64, -1 where a
    sample has none), whose numbers are the places in the sorted names of ``classes.txt``.

    Args:
        reader: of features of one layer.
        data: reads the shards.
        split: which.
        folder: made if it is not there.
        precision: of the numbers that are stored.
        listener: told the number of samples after each batch.

    Raises:
        ValueError: no sample has the modality, features of several layers, or items with different numbers of tokens.
    """
    if len(reader.layers) != 1:
        raise ValueError(f"features are written of one layer, got {reader.layers}.")
    folder.mkdir(parents=True, exist_ok=True)
    keys: list[str] = []
    labels: list[int] = []
    shape: tuple[int, ...] = ()
    dtype = stored_type(precision)
    path = folder / f"{split}.npy"
    total = sum(source.num_samples(split) for source in data.sources)
    with atomic_file(path) as file:
        for batch, numbers, found in split_features(reader, iter(data.evaluation_dataloader(split)), listener):
            rows = found[reader.layers[0]]
            shape = shape or _begin(file, rows[0], total, dtype)
            file.write(as_stored(_joined(rows, shape), precision).tobytes())
            keys += [batch.keys[number] for number in numbers]
            own = batch.labels.get("label")
            labels += [-1 if own is None else int(own[number]) for number in numbers]
        if not keys:
            raise ValueError(f"no sample of split {split!r} has the modality {reader.modality!r}.")
        file.seek(0)
        file.write(_header((len(keys), *shape), dtype, _header_size((total, *shape), dtype)))
        file.seek(0, 2)
    _write_lines(folder / f"{split}.keys.txt", keys)
    with atomic_file(folder / f"{split}.labels.npy") as file:
        np.save(file, np.array(labels, "<i8"), allow_pickle=False)
    _write_lines(folder / "classes.txt", data.classes)
    return WrittenArray(path, (len(keys), *shape), total - len(keys))


def _begin(file: BinaryIO, row: Tensor, total: int, dtype: np.dtype) -> tuple[int, ...]:
    """Leave room for the header, which says how many rows there are; return the shape of a row."""
    shape = tuple(row.shape)
    file.seek(_header_size((total, *shape), dtype))
    return shape


def _joined(rows: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    other = next((tuple(row.shape) for row in rows if tuple(row.shape) != shape), None)
    if other is not None:
        raise ValueError(f"items have different numbers of tokens ({shape[0]} and {other[0]}): write shards, or one vector of each item.")
    return torch.stack(rows)


def _header_size(shape: tuple[int, ...], dtype: np.dtype) -> int:
    plain = 10 + len(_description(shape, dtype)) + 1
    return -(-plain // 64) * 64


def _header(shape: tuple[int, ...], dtype: np.dtype, size: int) -> bytes:
    """Return the header of a ``.npy`` file of version 1.0, padded to ``size`` bytes."""
    text = _description(shape, dtype).ljust(size - 11) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def _description(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    return f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape}, }}".encode()


def _write_lines(path: Path, lines: list[str]) -> None:
    with atomic_file(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
