"""Files that get their name only once they are complete."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_TEMPORARY = re.compile(r"(.+)\.[0-9a-f]{8}\.tmp")


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` for writing; it appears, whole and on disk, when the block ends without an error.

    Until then the bytes are in ``<name>.<8 hex digits>.tmp``, so that two writers of one file do not meet; an error removes it, and a file
    that had the name before stays as it was.

    Raises:
        OSError: the disk is full or the folder cannot be written; the message names ``path``.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # as those of writing are
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def remove_temporary(folder: Path, names: Container[str]) -> None:
    """Remove what writers of the named files left behind when they were killed."""
    for entry in folder.iterdir():
        match = _TEMPORARY.fullmatch(entry.name)
        if match and match[1] in names:
            entry.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Put the new name on disk too; where folders cannot be opened (Windows) the system does it."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
