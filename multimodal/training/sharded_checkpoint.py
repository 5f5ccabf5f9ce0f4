"""Checkpoints that several processes wrote, each its shards, into one folder; read by one process, and without running what is in them.

The folder is that of ``torch.distributed.checkpoint``, with Lightning's ``meta.pt``. Its index is a pickle, of which only the kinds of
objects that torch writes there are made.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader, load
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta, TensorStorageMetadata

INDEX, REST = ".metadata", "meta.pt"
MODEL_KEYS = ("state_dict", "model")
"""What Lightning's strategies call the weights: that of model parallelism, and that of FSDP."""
_METADATA = "torch.distributed.checkpoint.metadata"
_ALLOWED = {
    *((_METADATA, name) for name in ("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties", "_MEM_FORMAT_ENCODING")),
    *((_METADATA, name) for name in ("TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata")),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    *(("pathlib", name) for name in ("PosixPath", "PurePosixPath")),
    *(("pathlib._local", name) for name in ("PosixPath", "PurePosixPath")),
}


def is_sharded_checkpoint(path: str | Path) -> bool:
    """Return whether a path is a folder of shards."""
    return (Path(path) / INDEX).is_file()


def read_sharded(path: str | Path, tensors: bool = True) -> dict[str, Any]:
    """Return a checkpoint in the form of those in one file, on the CPU.

    Args:
        path: of the folder.
        tensors: False: read what the checkpoint says, and check all that could run code; the weights are empty, on the device "meta", and
            the states of optimizers left out.

    Raises:
        ValueError: there is no such folder, a file is missing or damaged, or one holds more than tensors and plain values.
    """
    path = Path(path)
    index = _read_index(path)
    checkpoint = dict(_whole(path / REST, lambda: torch.load(path / REST, map_location="cpu", weights_only=True)))
    sizes = {name: value for name, value in index.state_dict_metadata.items() if isinstance(value, TensorStorageMetadata)}
    device = "cpu" if tensors else "meta"
    found: dict[str, Any] = {name: torch.empty(value.size, dtype=value.properties.dtype, device=device) for name, value in sizes.items()}
    if tensors:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as it should be
            _whole(path, lambda: load(found, storage_reader=_Reader(path), no_dist=True))
    found |= {name: _read_value(path, index, name) for name in index.state_dict_metadata.keys() - sizes.keys()}
    nested = _unflatten(found, index.planner_data or {})
    model = next((key for key in MODEL_KEYS if key in nested), None)
    if model is None:
        raise ValueError(f"{path} is no checkpoint of a run: it has no weights under {' or '.join(MODEL_KEYS)}.")
    checkpoint["state_dict"] = nested[model]
    if tensors:
        names = sorted((name for name in nested if name.startswith("optimizer_")), key=lambda name: int(name.rpartition("_")[2]))
        checkpoint["optimizer_states"] = [_numbered(nested[name]) for name in names]
    return checkpoint


class _IndexUnpickler(pickle.Unpickler):
    """Makes nothing but what torch writes into an index."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the allowed classes."""
        if (module, name) in _ALLOWED or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name}")


class _Reader(FileSystemReader):
    """Reads the index with ``_IndexUnpickler``; tensors are read as such by torch's own reader."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the index."""
        index = _read_index(Path(self.path))
        index.storage_meta = index.storage_meta or StorageMeta()
        index.storage_meta.load_id = self.load_id
        return index


def _read_index(path: Path) -> Metadata:
    if not (path / INDEX).is_file():
        raise ValueError(f"checkpoint {path} is no folder of shards: it has no {INDEX}.")
    index = _whole(path / INDEX, lambda: _IndexUnpickler(BytesIO((path / INDEX).read_bytes())).load())
    if not isinstance(index, Metadata) or not isinstance(index.storage_data, dict):  # torch writes nothing else
        raise ValueError(f"{path / INDEX} is damaged: it holds no index of shards.")
    for info in index.storage_data.values():
        file = path / info.relative_path
        if Path(info.relative_path).name != info.relative_path:
            raise ValueError(f"{path / INDEX} is refused: it names {info.relative_path!r}, which is not a file of the folder.")
        if not file.is_file() or file.stat().st_size < info.offset + info.length:
            raise ValueError(f"{path} is damaged: {info.relative_path} is {'cut off' if file.is_file() else 'missing'}.")
    return index


def _read_value(path: Path, index: Metadata, name: str) -> Any:
    """Return what is no tensor."""

    def read() -> Any:
        info = index.storage_data[MetadataIndex(name)]
        with (path / info.relative_path).open("rb") as file:
            file.seek(info.offset)
            return torch.load(BytesIO(file.read(info.length)), map_location="cpu", weights_only=True)

    return _whole(path, read)


def _whole(path: Path, read: Callable[[], Any]) -> Any:
    """Return what ``read`` returns; turn what goes wrong into one message."""
    try:
        return read()
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is refused or damaged: it holds more than tensors and plain values ({_first_line(error)}).") from error
    except CheckpointException as error:
        causes = [cause[0] if isinstance(cause, tuple) else cause for cause in error.failures.values()]
        raise ValueError(f"{path} is damaged: {_first_line(causes[0])}") from error
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, AttributeError, IndexError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _unflatten(values: Mapping[str, Any], paths: Mapping[str, tuple]) -> dict[str, Any]:
    """Return values under the keys that they had: ``("optimizer_0", "param_groups", 1, "lr")``; numbers are keys, too."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *parents, last = paths.get(name, (name,))
        place: dict[Any, Any] = nested
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = value
    return nested


def _numbered(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of an optimizer as torch writes it: parameters are numbers, not names."""
    groups: list[dict[str, Any]] = []
    numbers: dict[str, int] = {}
    for _, group in sorted(optimizer["param_groups"].items()):
        for name in group["params"]:
            numbers[name] = len(numbers)
        groups.append({**group, "params": [numbers[name] for name in group["params"]]})
    return {"state": {numbers[name]: state for name, state in optimizer.get("state", {}).items()}, "param_groups": groups}
