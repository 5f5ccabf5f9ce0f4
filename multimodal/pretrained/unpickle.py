"""Pickled modules -> tensors, without making the modules: DALL-E's weights are published as whole objects (``encoder.pkl``).

A pickle is a program that may call whatever it can name. Here it can name nothing but what is listed in this file: classes become empty
shells that only keep what they are given, and tensors are cut from the file by bounds that are checked. Nothing is imported for a file.
"""

from __future__ import annotations

import math
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SHELLS = ("dall_e.", "torch.nn.modules.")
"""Beginnings of the modules whose classes are taken for shells."""
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
MAX_PICKLE_BYTES = 2**24
"""Of the program itself, which holds no numbers; DALL-E's has some 20 kB."""
MAX_DEPTH = 32
"""Of modules within modules."""
DAMAGE = (
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OSError,
    RuntimeError,
    RecursionError,
    MemoryError,
    struct.error,
)


class Shell:
    """Stands for an object of a class that is not imported; keeps the attributes that the pickle gives it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = dict(state) if isinstance(state, Mapping) else {}


class Restricted(pickle._Unpickler):
    """An unpickler that knows the names above and no others; in Python, whose memory does not depend on numbers in the file.

    Args:
        file: the pickle.
        storage: makes a flat tensor of (kind, key, number of values).
    """

    def __init__(self, file: BufferedIOBase, storage: Callable[[torch.dtype, str, int], Tensor] | None = None) -> None:
        super().__init__(file)  # type: ignore[call-arg, arg-type]
        self.storage = storage
        self.shells: dict[str, type[Shell]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for.

        Raises:
            UnpicklingError: it is not one of the names above.
        """
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if f"{module}." in SHELLS or module.startswith(SHELLS):
            return self.shells.setdefault(f"{module}.{name}", type(name, (Shell,), {}))
        known: dict[str, Any] = {
            "collections.OrderedDict": OrderedDict,
            "builtins.set": set,
            "__builtin__.set": set,
            "torch.device": _device,
            "torch.float32": torch.float32,
            "torch.float16": torch.float16,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_parameter": _parameter,
        }
        if f"{module}.{name}" not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known[f"{module}.{name}"]

    def load_build(self) -> None:
        """Give an object its attributes: shells and ordered dictionaries alone, so that nothing of ours can be changed.

        Raises:
            UnpicklingError: it is another object.
        """
        target = self.stack[-2]  # type: ignore[attr-defined]
        if not isinstance(target, Shell | OrderedDict):
            raise pickle.UnpicklingError(f"it changes a {type(target).__name__}")
        super().load_build()  # type: ignore[misc]

    dispatch = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}  # type: ignore[attr-defined, dict-item]

    def persistent_load(self, pid: Any) -> Any:
        """Return the numbers of a storage, or the shell of a class beside which torch before 1.6 put its source.

        Raises:
            UnpicklingError: it is neither.
        """
        match pid:
            case ("storage", torch.dtype() as kind, key, _, int() as count, *view) if self.storage is not None and view in ([], [None]):
                return self.storage(kind, str(key), count)
            case ("module", type() as shell, *_) if issubclass(shell, Shell):
                return shell
        raise pickle.UnpicklingError("it refers to what is neither a storage nor a class of a module")


def read_module(path: str | Path) -> dict[str, Tensor]:
    """Return the parameters and buffers of a pickled module, by their names in its state dict.

    Args:
        path: a file that ``torch.save(module, path)`` wrote, with a module of DALL-E or of ``torch.nn``.

    Raises:
        ValueError: the file is damaged, asks for anything but such modules and tensors, or holds no module.
    """
    path = Path(path)
    try:
        if tarfile.is_tarfile(path):
            raise pickle.UnpicklingError("it is a tar archive, as torch before 0.2 wrote them")
        root = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
        tensors: dict[str, Tensor] = {}
        _collect(root, "", tensors, 0)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is refused: {error}. Only modules of DALL-E and of torch.nn, and their tensors, are read.") from error
    except (*DAMAGE, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged, or no pickled module: {type(error).__name__} {str(error)[:200]}".rstrip()) from error
    return tensors


def _read_zip(path: Path) -> Any:
    """Read what torch has written since 1.6: a zip of a pickle and one file for each storage."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if packed := [name for name, info in entries.items() if info.compress_type != zipfile.ZIP_STORED]:
            raise pickle.UnpicklingError(f"its entry {packed[0]} is compressed, which torch never does")
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise pickle.UnpicklingError("its numbers are big-endian")
        if entries["data.pkl"].file_size > MAX_PICKLE_BYTES:
            raise pickle.UnpicklingError(f"its pickle has {entries['data.pkl'].file_size} bytes, over {MAX_PICKLE_BYTES}")
        read: dict[str, Tensor] = {}

        def storage(kind: torch.dtype, key: str, count: int) -> Tensor:
            if key not in read:
                data = archive.read(entries[f"data/{key}"])
                _check_size(len(data), kind, count)
                read[key] = torch.frombuffer(bytearray(data), dtype=kind) if count else torch.empty(0, dtype=kind)
            return read[key]

        return Restricted(BytesIO(archive.read(entries["data.pkl"])), storage).load()


def _read_legacy(path: Path) -> Any:
    """Read what torch wrote before 1.6: pickles one after the other, then the storages."""
    made: dict[str, Tensor] = {}
    limit = path.stat().st_size
    with path.open("rb") as file:

        def storage(kind: torch.dtype, key: str, count: int) -> Tensor:
            if not 0 <= count * kind.itemsize <= limit:
                raise pickle.UnpicklingError(f"a storage of {count} values does not fit into a file of {limit} bytes")
            return made.setdefault(key, torch.empty(count, dtype=kind))

        if Restricted(file).load() != LEGACY_MAGIC:
            raise pickle.UnpicklingError("it was not written by torch.save")
        Restricted(file).load()  # the version of the protocol
        Restricted(file).load()  # facts about the machine
        root = Restricted(file, storage).load()
        for key in Restricted(file).load():
            (count,) = struct.unpack("<q", file.read(8))
            target = made[str(key)]
            if count != len(target):
                raise pickle.UnpicklingError(f"storage {key} has {count} values, and {len(target)} are expected")
            data = file.read(count * target.dtype.itemsize)
            _check_size(len(data), target.dtype, count)
            if count:
                target.copy_(torch.frombuffer(bytearray(data), dtype=target.dtype))
    return root


def _check_size(size: int, kind: torch.dtype, count: int) -> None:
    if size != count * kind.itemsize:
        raise pickle.UnpicklingError(f"a storage of {count} values of {kind} has {size} bytes")


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> Tensor:
    """Cut a tensor from a storage."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, Tensor) or len(size) != len(stride) or any(not isinstance(n, int) or n < 0 for n in numbers):
        raise pickle.UnpicklingError("a tensor has a shape that no tensor has")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and (last >= storage.numel() or math.prod(size) > storage.numel()):
        raise pickle.UnpicklingError(
            f"a tensor of {math.prod(size)} values, the last at {last}, is not within a storage of {storage.numel()}"
        )
    return storage.as_strided(size, stride, offset) if 0 not in size else storage.new_empty(size)  # legacy storages are filled later


def _device(*arguments: Any) -> str:
    return ":".join(map(str, arguments))


def _parameter(data: Tensor, *rest: Any) -> Tensor:
    return data


def _collect(module: Any, prefix: str, tensors: dict[str, Tensor], depth: int) -> None:
    """Add the tensors of a module and of those in it."""
    if not isinstance(module, Shell) or depth > MAX_DEPTH:
        raise pickle.UnpicklingError(
            f"it holds a {type(module).__name__}, not a module" if depth <= MAX_DEPTH else "its modules have no end"
        )
    for kind in ("_parameters", "_buffers"):
        held = module.attributes.get(kind) or {}
        tensors.update({f"{prefix}{name}": x.clone() for name, x in held.items() if isinstance(x, Tensor)})
    for name, inner in (module.attributes.get("_modules") or {}).items():
        if inner is not None:
            _collect(inner, f"{prefix}{name}.", tensors, depth + 1)
