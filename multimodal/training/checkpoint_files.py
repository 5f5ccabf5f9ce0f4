"""Checkpoints on disk: whole or not there, and read without running what is in them."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

from multimodal.atomic import atomic_file, remove_temporary
from multimodal.training.sharded_checkpoint import is_sharded_checkpoint, read_sharded


class CheckpointFiles(TorchCheckpointIO):
    """Writes checkpoints so that a name is only ever that of a whole file, on disk; reads them checked, and never any code.

    A checkpoint is written straight to disk under another name, without a copy in memory. Paths with a protocol (``s3://``) are
    Lightning's, and so is the writing of folders by sharded strategies.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint; a file that had the name stays as it was until the new one is whole.

        Raises:
            OSError: it cannot be written; the message names the path, the bytes that were to be written and those that are free.
        """
        if "://" in str(path) or storage_options is not None:
            return super().save_checkpoint(checkpoint, path, storage_options)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_temporary(path.parent, {file.name.rsplit(".", 2)[0] for file in path.parent.glob("*.ckpt.*.tmp")})  # of killed runs
        try:
            with _instead_of_folder(path), atomic_file(path) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch turns some errors of a file into a RuntimeError
            cause = error if isinstance(error, OSError) else error.__context__
            reason = cause.strerror if isinstance(cause, OSError) else str(error).splitlines()[0]
            free = shutil.disk_usage(path.parent).free
            raise OSError(
                f"{path} could not be written ({_tensor_bytes(checkpoint):,} bytes of tensors, {free:,} bytes free): "
                f"{reason}. The file of that name, if any, is as it was."
            ) from error

    def load_checkpoint(self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Return a checkpoint; of what is in the file only tensors and plain values are made, whatever ``weights_only`` says.

        A folder that several processes wrote is read as if it were one file.
        """
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, True)
        return read_sharded(path) if is_sharded_checkpoint(path) else read_checkpoint(path)


def consolidated_state(path: str | Path) -> dict[str, Tensor]:
    """Return the weights of a checkpoint, whole and on the CPU, whether it is one file or a folder of shards.

    Args:
        path: of the file or the folder.

    Raises:
        ValueError: it cannot be read, is damaged, or holds more than tensors and plain values.
    """
    checkpoint = read_sharded(path) if Path(path).is_dir() else read_checkpoint(path)
    return {name: value for name, value in checkpoint["state_dict"].items() if isinstance(value, Tensor)}


def read_checkpoint(path: str | Path, mapped: bool = False) -> dict[str, Any]:
    """Return a checkpoint, on the CPU.

    Args:
        path: of the file.
        mapped: leave the tensors on disk until they are used.

    Raises:
        ValueError: there is no such file, it is cut off, damaged or no checkpoint, or it holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint {path} does not exist.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} ({path.stat().st_size:,} bytes) is no checkpoint, or is cut off.")
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
        if damaged:
            raise ValueError(f"{path} is damaged: the checksum of {damaged} does not fit.")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is refused: it holds more than tensors and plain values ({_offender(error)}).") from error
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, KeyError) as error:  # an unknown compression is a RuntimeError, too
        raise ValueError(f"{path} is no checkpoint, or is damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} is no checkpoint of a run: it has no state_dict.")
    return checkpoint


def find_last(folder: str | Path) -> tuple[Path | None, list[str]]:
    """Return the checkpoint to go on from, and what is wrong with newer ones.

    Args:
        folder: of the checkpoints.

    Returns:
        ``last.ckpt`` if it can be read, else the newest that can; None for a folder without checkpoints.

    Raises:
        ValueError: there are some, and none can be read.
    """
    files = sorted(Path(folder).glob("*.ckpt"), key=lambda path: (path.name == "last.ckpt", path.stat().st_mtime_ns), reverse=True)
    problems: list[str] = []
    for path in files:
        try:
            read_sharded(path, tensors=False) if path.is_dir() else read_checkpoint(path, mapped=True)
            return path, problems
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError(f"no checkpoint in {folder} can be read: {' '.join(problems)}")
    return None, problems


@contextmanager
def _instead_of_folder(path: Path) -> Iterator[None]:
    """Let a file take the place of a folder that several processes wrote, once the file is whole."""
    if not path.is_dir() or path.is_symlink():
        path.unlink() if path.is_dir() else None
        yield
        return
    aside = path.with_name(f"{path.name}.{os.getpid()}.old")
    path.rename(aside)
    try:
        yield
    except BaseException:
        aside.rename(path)
        raise
    shutil.rmtree(aside)


def _offender(error: Exception) -> str:
    """Return what of the file torch refused, from a message of many lines of advice."""
    lines = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line]
    return lines[0].split(" was not")[0].removeprefix("WeightsUnpickler error: ") if lines else "code"


def _tensor_bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    children = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return sum(map(_tensor_bytes, children))
