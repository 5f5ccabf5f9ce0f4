"""Foreign weight files -> tensors, without running anything that is in them."""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from multimodal.pretrained.unpickle import read_module

WRAPPERS = ("model", "module", "state_dict", "model_state_dict", "weights")
"""Where published files keep the state dict."""
NUMPY = np._core.multiarray  # type: ignore[attr-defined]
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np.ndarray,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
    *((getattr(NUMPY, name), f"numpy.{core}.multiarray.{name}") for name in ("scalar", "_reconstruct") for core in ("core", "_core")),
]
"""Classes beside tensors in published files: plain data, with no code of their own."""
CONFIG_NAME = "config.json"
PREPROCESSOR_NAME = "preprocessor_config.json"
SAFETENSORS, PICKLED, MODULES = (".safetensors",), (".pt", ".pth", ".bin", ".ckpt"), (".pkl",)
NAMES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""What a folder's weights are called, in order of preference."""
MODULE_NAMES = ("encoder.pkl", "decoder.pkl")
"""Pickled modules that belong together: the names of their tensors begin with that of their file."""
DAMAGE = (RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, OSError, zipfile.BadZipFile, SafetensorError)


@dataclass(frozen=True)
class Checkpoint:
    """What a weight file holds.

    Args:
        tensors: name -> tensor, on the CPU.
        config: what ``config.json`` beside it says; empty where there is none.
        extra: what else the file holds beside the tensors, as plain data; and what ``preprocessor_config.json`` beside it says, under
            "preprocessor_config".
        path: of the file or folder.
        sha256: of the file, hex; of several, of their hashes in order.
    """

    tensors: dict[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    path: Path = Path()
    sha256: str = ""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape."""
        return {name: tuple(x.shape) for name, x in self.tensors.items()}


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a weight file, or a folder with weights and ``config.json``.

    Args:
        path: ``.safetensors``, or ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` as ``torch.save`` writes them; ``.pkl``, a pickled module of
            DALL-E; or a folder that holds ``model.safetensors`` or ``pytorch_model.bin``, whole or in numbered parts, or ``encoder.pkl``
            with ``decoder.pkl``.

    Raises:
        ValueError: nothing is there; the file is damaged or cut off, holds objects that could run code, or holds no tensors.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder. Nothing is downloaded: fetch the weights and give their path.")
    files = _files_of(path) if path.is_dir() else [path]
    tensors: dict[str, Tensor] = {}
    extra: dict[str, Any] = {}
    for file in files:
        found, beside = _read_file(file)
        prefix = f"{file.stem}." if len(files) > 1 and file.name in MODULE_NAMES else ""
        tensors.update({f"{prefix}{name}": x for name, x in found.items()})
        extra.update(beside)
    if not tensors:
        raise ValueError(f"{path} holds no tensors.")
    folder = path if path.is_dir() else path.parent
    if preprocessor := _config(folder / PREPROCESSOR_NAME):
        extra["preprocessor_config"] = preprocessor
    return Checkpoint(tensors, _config(folder / CONFIG_NAME), extra, path, _hash(files))


def _files_of(folder: Path) -> list[Path]:
    for name in NAMES:
        path = folder / name
        if path.is_file():
            return _parts(path) if name.endswith(".index.json") else [path]
    if modules := [folder / name for name in MODULE_NAMES if (folder / name).is_file()]:
        return modules
    files = sorted(path for path in folder.iterdir() if path.suffix in SAFETENSORS + PICKLED + MODULES)
    if len(files) == 1:
        return files
    what = f"{len(files)} weight files: name one" if files else f"no weight file ({', '.join(NAMES)})"
    raise ValueError(f"{folder} holds {what}.")


def _parts(index: Path) -> list[Path]:
    """Return the files that an index names, which must lie beside it."""
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        paths = [index.parent / Path(name).name for name in names]
    except DAMAGE as error:
        raise ValueError(f"{index} is not an index of weight files: {error!r}") from error
    if missing := [path.name for path in paths if not path.is_file()]:
        raise ValueError(f"{index} names {missing}, which are not beside it.")
    return paths


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if path.suffix in SAFETENSORS:
        try:
            return load_file(path), {}
        except DAMAGE as error:
            raise ValueError(f"{path} is damaged, or no safetensors file: {_said(error)}") from error
    if path.suffix in MODULES:
        return read_module(path), {}
    if path.suffix not in PICKLED:
        raise ValueError(f"{path}: weights come as {', '.join(SAFETENSORS + PICKLED + MODULES)}, or as a folder.")
    try:
        with torch.serialization.safe_globals(HARMLESS):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "unsupported global" in str(error).lower() or "unsupported class" in str(error).lower():
            raise ValueError(f"{path} holds objects that could run code, and is refused: {_said(error)}") from error
        raise ValueError(f"{path} is damaged, or was not written by torch.save: {_said(error)}") from error
    except DAMAGE as error:
        raise ValueError(f"{path} is damaged, or was not written by torch.save: {_said(error)}") from error
    return _unwrap(path, loaded)


def _unwrap(path: Path, loaded: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a state dict and what stood beside it."""
    beside: dict[str, Any] = {}
    while isinstance(loaded, Mapping):
        tensors = {str(name): x for name, x in loaded.items() if isinstance(x, Tensor)}
        if wrapper := next((name for name in WRAPPERS if isinstance(loaded.get(name), Mapping)), None):
            beside.update({str(name): x for name, x in loaded.items() if name != wrapper and not isinstance(x, Tensor)})
            loaded = loaded[wrapper]
            continue
        return {name.removeprefix("module."): x for name, x in tensors.items()}, beside
    raise ValueError(f"{path} holds a {type(loaded).__name__}, not a state dict (name -> tensor).")


def _config(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(config, Mapping):
        raise ValueError(f"{path} is no config: it holds a {type(config).__name__}.")
    return config


def _hash(files: list[Path]) -> str:
    hashes = [file_hash(path) for path in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """Return the SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _said(error: BaseException) -> str:
    if asked := re.search(r"unsupported global\W+(?:GLOBAL )?([\w.]+)", str(error), re.IGNORECASE):
        return f"it asks for {asked[1]}"
    return next(iter(_lines(error)), type(error).__name__).partition(". ")[0][:200]


def _lines(error: BaseException) -> Iterator[str]:
    """Yield the lines of a message that say something about this file."""
    for line in str(error).splitlines():
        if line.strip() and "weights_only" not in line:
            yield line.strip()
