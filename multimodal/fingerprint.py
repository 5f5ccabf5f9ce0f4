"""What a transform does to data, as a hash: transforms with equal fingerprints make equal views from equal seeds."""

from __future__ import annotations

import enum
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch

from multimodal import __version__
from multimodal.protocols import Tokenizer, Transform

_LIBRARIES = {
    "PIL": "Pillow",
    "av": "av",
    "soundfile": "soundfile",
    "symusic": "symusic",
    "timm": "timm",
    "torch": "torch",
    "torchaudio": "torchaudio",
    "torchcodec": "torchcodec",
    "torchvision": "torchvision",
}
"""Import name -> distribution name of the libraries that decode, resample and augment."""
_WITHOUT_SETTINGS = (FunctionType, MethodType, partial, type, ModuleType, torch.nn.Module)
"""Kinds of objects whose attributes do not tell what they do."""


def transform_fingerprint(transform: Transform) -> str:
    """Return the SHA-256 (hex) of the class of a transform and of its attributes, those of nested objects included.

    A tokenizer counts by its own fingerprint, and so does any object with a method ``fingerprint``. Numbers count by value, 1 as 1.0, and
    lists as tuples, since a config does not tell them apart.

    Raises:
        ValueError: an attribute is of a kind that has no stable hash, such as a function.
    """
    said = [_class_path(transform), _plain(vars(transform), type(transform).__name__)]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def library_versions(transform: Transform) -> dict[str, str]:
    """Return the versions of this package and of the libraries that the code of a transform uses.

    Those are what the modules of its package import, and what its parts name in ``libraries``, a tuple of import names: parts that import
    one only when they run have to. Other versions may decode or resize a little differently, so that a view is no longer quite the one that
    was tokenized.
    """
    package = type(transform).__module__.rpartition(".")[0]
    used = {name for module in _modules(package or type(transform).__module__) for name in _imported(module)}
    used |= {name for part in _parts(transform) for name in getattr(type(part), "libraries", ())}
    versions = {"multimodal": __version__}
    for name in sorted(used & _LIBRARIES.keys()):
        try:
            versions[_LIBRARIES[name]] = version(_LIBRARIES[name]).partition("+")[0]  # not the build: +cpu, +cu128
        except PackageNotFoundError:
            continue
    return versions


def _modules(package: str) -> list[ModuleType]:
    inside = [module for name, module in sorted(sys.modules.items()) if f"{name}.".startswith(f"{package}.")]
    return [module for module in inside if isinstance(module, ModuleType)]


def _imported(module: ModuleType) -> Iterator[str]:
    """Yield the top-level names of the packages that the objects in a module come from."""
    for value in vars(module).values():
        origin = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(origin, str):
            yield origin.partition(".")[0]


def _parts(value: Any) -> Iterator[Any]:
    """Yield an object and those that it is made of."""
    yield value
    inside = value
    if not isinstance(value, (Mapping, list, tuple)):
        inside = {} if isinstance(value, _WITHOUT_SETTINGS) else getattr(value, "__dict__", {})
    for part in inside.values() if isinstance(inside, Mapping) else inside:
        yield from _parts(part)


def _plain(value: Any, where: str) -> Any:
    """Return a value as JSON that is equal for equal settings."""
    if isinstance(value, enum.Enum):
        return [_class_path(value), value.name]
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, (PurePath, torch.dtype)):
        return str(value)
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), _plain(value.tolist(), where)]
    if isinstance(value, (list, tuple)):
        return [_plain(part, f"{where}[{number}]") for number, part in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(_plain(part, where), sort_keys=True) for part in value)
    if isinstance(value, Mapping):
        return {str(name): _plain(part, f"{where}.{name}") for name, part in value.items()}
    return _object(value, where)


def _object(value: Any, where: str) -> Any:
    if isinstance(value, Tokenizer) or callable(getattr(value, "fingerprint", None)):
        return [_class_path(value), value.fingerprint()]
    if isinstance(value, _WITHOUT_SETTINGS) or not hasattr(value, "__dict__"):
        raise ValueError(f"{where} is a {type(value).__name__}, which has no fingerprint: keep plain settings, or give it fingerprint().")
    return [_class_path(value), _plain(vars(value), where)]


def _class_path(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
