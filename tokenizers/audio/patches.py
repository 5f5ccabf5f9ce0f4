"""Spectrograms -> patches.

Letters in shapes: b items, f frames, m mel bins, r rows (places in time) of all items, t rows of an item, k bands, p frames and q bins of a
patch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from multimodal.protocols import Tokens


def patch_shape(size: int | Sequence[int]) -> tuple[int, int]:
    """Return the frames and bins of a patch, which one number says for both.

    Raises:
        ValueError: it is neither one number nor two, or one is below 1.
    """
    shape = (size, size) if isinstance(size, int) else tuple(size)
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"patch_size must be a number, or one of frames and one of bins, of at least 1; got {size}.")
    return shape


def cut_patches(
    values: Float[Tensor, "*f m"],
    lengths: Int[Tensor, " b"] | None,
    size: tuple[int, int],
    stride: Sequence[int],
    frequency_first: bool = False,
) -> Tokens:
    """Cut spectrograms into patches; frames and bins that do not fill one are left out.

    Args:
        values: ``(b, f, m)`` of items of one length, or ``(f, m)`` of all items end to end with ``lengths``.
        lengths: frames of each item; None: all have the same.
        size: frames and bins of a patch.
        stride: frames and bins from one patch to the next.
        frequency_first: whether all patches of a band stand together and the first coordinate is the band, instead of the time.

    Returns:
        Tokens whose inputs are the values of a patch, frame after frame.

    Raises:
        ValueError: an item is smaller than a patch, or there are no lengths where they are needed.
    """
    if values.ndim != (3 if lengths is None else 2):
        raise ValueError(f"spectrograms must be (items, frames, bins), or (frames, bins) with lengths, got {tuple(values.shape)}.")
    if values.shape[-1] < size[1] or (lengths is None and values.shape[1] < size[0]):
        raise ValueError(f"a spectrogram of {tuple(values.shape[-2:])} frames and bins is smaller than a patch of {size[0]} x {size[1]}.")
    if lengths is None:
        return _cut_dense(values, size, stride, frequency_first)
    return _cut_ragged(values, lengths, size, stride, frequency_first)


def _cut_dense(values: Tensor, size: tuple[int, int], stride: Sequence[int], frequency_first: bool) -> Tokens:
    patches = values.unfold(1, size[0], stride[0]).unfold(2, size[1], stride[1])  # b t k p q
    count, rows, bands = patches.shape[:3]
    grid = (bands, rows) if frequency_first else (rows, bands)
    order = "b t k p q -> (b k t) (p q)" if frequency_first else "b t k p q -> (b t k) (p q)"
    places = torch.cartesian_prod(*(torch.arange(extent, device=values.device) for extent in grid))
    lengths = torch.full((count,), rows * bands, device=values.device)
    return Tokens(rearrange(patches, order), lengths, places.repeat(count, 1), grid)


def _cut_ragged(values: Tensor, lengths: Tensor, size: tuple[int, int], stride: Sequence[int], frequency_first: bool) -> Tokens:
    if bool((lengths < size[0]).any()):
        raise ValueError(f"an item of {int(lengths.min())} frames is smaller than a patch of {size[0]}: set min_frames of the transform.")
    rows = (lengths - size[0]) // stride[0] + 1
    item = torch.repeat_interleave(rows)  # r
    row = torch.arange(len(item), device=values.device) - (rows.cumsum(0) - rows)[item]
    first = (lengths.cumsum(0) - lengths)[item] + row * stride[0]
    frames = values[first[:, None] + torch.arange(size[0], device=values.device)]  # r p m
    patches = frames.unfold(2, size[1], stride[1])  # r p k q
    bands = patches.shape[2]
    inputs = rearrange(patches, "r p k q -> (r k) (p q)")
    band = torch.arange(bands, device=values.device).repeat(len(item))
    coordinates = torch.stack([row.repeat_interleave(bands), band], 1)
    if not frequency_first:
        return Tokens(inputs, rows * bands, coordinates)
    order = (item.repeat_interleave(bands) * bands + band).argsort(stable=True)  # within a band, time keeps its order
    return Tokens(inputs[order], rows * bands, coordinates[order].flip(1))
