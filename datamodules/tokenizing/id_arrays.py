"""Ids of one item as the bytes of a ``.npy`` file: compact, equal for equal ids, and checked when they are read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from torch import Tensor

_DTYPES = ("|u1", "<u2", "<i4")  # fixed byte order: the bytes do not depend on the machine
_HEADER = re.compile(  # of version 1.0 as NumPy writes it; its own parser lets a damaged one end in any error
    rb"\x93NUMPY\x01\x00(..)\{'descr': '([^']{1,8})', 'fortran_order': (True|False), 'shape': \(([0-9, ]{0,60})\), \} *\n", re.DOTALL
)


def id_dtype(vocab_sizes: Sequence[int]) -> np.dtype:
    """Return the smallest of uint8, uint16 and int32 that holds every id.

    Raises:
        ValueError: no vocabulary, an empty one, or one of more than 2 ** 31 ids.
    """
    for dtype in map(np.dtype, _DTYPES):
        if vocab_sizes and 1 <= min(vocab_sizes) <= max(vocab_sizes) <= int(np.iinfo(dtype).max) + 1:
            return dtype
    raise ValueError(f"vocab_sizes must be numbers from 1 to 2 ** 31, got {list(vocab_sizes)}.")


def ids_to_npy(ids: Tensor, vocab_sizes: Sequence[int]) -> bytes:
    """Return the bytes of a ``.npy`` file.

    Args:
        ids: ``(n,)`` for one vocabulary, else ``(n, k)`` with one column for each.
        vocab_sizes: number of ids of each field.

    Raises:
        ValueError: another shape, or an id outside its vocabulary.
    """
    array = ids.detach().cpu().numpy()
    _check(array, vocab_sizes)
    file = BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array, id_dtype(vocab_sizes)), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def ids_from_npy(data: bytes, vocab_sizes: Sequence[int]) -> Tensor:
    """Return the ids, int64, that ``ids_to_npy`` wrote for the same vocabularies.

    Raises:
        ValueError: not such a file: damaged, of another type or shape, or with an id outside its vocabulary.
    """
    header = _HEADER.match(data)
    if header is None or 10 + int.from_bytes(header[1], "little") != header.end():
        raise ValueError("not the .npy file of an array of ids.")
    dtype, expected = header[2].decode(), id_dtype(vocab_sizes)
    if dtype != expected.str or header[3] == b"True":
        order = " in Fortran order" if header[3] == b"True" else ""
        raise ValueError(f"ids are {dtype}{order}; for vocabularies of {list(vocab_sizes)} they are {expected.str}.")
    shape = tuple(int(size) for size in header[4].split(b",") if size.strip())
    body = len(data) - header.end()
    if math.prod(shape) * expected.itemsize != body:  # before anything of that size is allocated
        raise ValueError(f"damaged ids: {body} bytes for the shape {shape}.")
    array = np.frombuffer(data, expected, offset=header.end()).reshape(shape).astype(np.int64)
    _check(array, vocab_sizes)
    return torch.from_numpy(array)


def _check(array: np.ndarray, vocab_sizes: Sequence[int]) -> None:
    num_fields = len(vocab_sizes)
    if array.ndim != (1 if num_fields == 1 else 2) or (num_fields > 1 and array.shape[1] != num_fields):
        wanted = "(n,)" if num_fields == 1 else f"(n, {num_fields})"
        raise ValueError(f"ids have the shape {array.shape}; {wanted} is wanted for {num_fields} fields.")
    if not len(array):
        return
    columns = array.reshape(-1, num_fields)
    lowest, highest = columns.min(0).tolist(), columns.max(0).tolist()
    for low, high, size in zip(lowest, highest, vocab_sizes, strict=True):
        if low < 0 or high >= size:
            raise ValueError(f"ids from {low} to {high}; they must be in [0, {size}).")
