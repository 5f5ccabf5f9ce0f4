"""Arrays in ``.npy`` fields, read without running anything and without believing what they say of their size."""

from __future__ import annotations

import io
import warnings

import numpy as np

_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def load_array(data: bytes) -> np.ndarray:
    """Return the array that a ``.npy`` file holds, as a read-only view of its bytes.

    Args:
        data: the file; version 1.0 or 2.0 of the format.

    Raises:
        ValueError: no such file, objects in it (they would be unpickled), or another size than its header says.
    """
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        if version not in _READERS:
            raise ValueError(f"version {version[0]}.{version[1]} of the format; 1.0 and 2.0 are read")
        with warnings.catch_warnings(action="ignore"):  # of what numpy thinks of a damaged header
            shape, columns_first, dtype = _READERS[version](file)
    except Exception as error:  # the header is Python text: what its parser raises on damage is anybody's guess
        raise ValueError(f"not an array ({len(data)} bytes): {_first_line(error)}.") from None
    if dtype.hasobject:
        raise ValueError(f"an array of Python objects ({dtype}): refused, since reading it could run code.")
    count = 1
    for length in shape:
        count *= length
    present = len(data) - file.tell()
    if min(shape, default=0) < 0 or count * dtype.itemsize != present:
        raise ValueError(f"the header says {dtype} values of shape {shape}, {count * dtype.itemsize} bytes; {present} bytes are there.")
    if not dtype.itemsize:
        return np.empty(shape if count < 2**31 else 0, dtype)
    return np.frombuffer(data, dtype, count, file.tell()).reshape(shape, order="F" if columns_first else "C")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "").rstrip(".") or type(error).__name__
