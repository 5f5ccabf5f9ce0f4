"""One writer at a time in a folder of shards."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PATIENCE_S = 5.0


@contextmanager
def folder_lock(folder: Path, name: str = ".writing") -> Iterator[None]:
    """Keep other writers out of a folder for the time of a block; the lock of a killed process is void.

    Args:
        folder: of the shards.
        name: of the lock; writers of different parts take different ones.

    Raises:
        ValueError: another process is writing there.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    path = folder / name
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                break  # otherwise another writer removed this file when it ended
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise ValueError(f"another process is writing into {folder}: wait until it has ended.") from None
            time.sleep(0.1)
        except OSError:
            break  # a file system without locks
        os.close(descriptor)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
