"""Tables of positions, biases and patch weights, resampled for another resolution.

Letters in shapes: n places of a grid, d width, r rows of a table, h heads, o outputs, c channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from multimodal.nn.bias import NUM_SPECIAL_ROWS

LEAST_RATIO, LARGEST_RATIO, RATIO_PRECISION = 1.01, 1.5, 1e-6


def resize_grid(
    table: Float[Tensor, "n d"],
    old: Sequence[int],
    new: Sequence[int],
    mode: Literal["bicubic", "bilinear", "linear"] = "bicubic",
    align_corners: bool = False,
) -> Float[Tensor, "m d"]:
    """Resample a table of absolute positions (ViT, BEiT, MAE).

    Rows of class tokens and unused rows are to be cut off before, and put back after.

    Args:
        table: a vector for each place of a grid, in row-major order.
        old: extent of the grid along its one or two axes.
        new: extent to be.
        mode: "bicubic" or "bilinear" for two axes; one axis is always resampled linearly.
        align_corners: whether first and last places stay where they are, or the edges half a place beyond them.

    Raises:
        ValueError: the table is not of that grid, or the grids are not of one or two axes each.
    """
    old, new = tuple(old), tuple(new)
    if len(old) != len(new) or len(old) not in (1, 2) or min(new) < 1:
        raise ValueError(f"a table can be resampled along one axis or two, at least 1 long, got {old} to {new}.")
    if len(table) != math.prod(old):
        raise ValueError(f"a table of {len(table)} rows is not of a grid of {old}, which has {math.prod(old)} places.")
    if old == new:
        return table
    grid = table.T.float().unflatten(1, old)[None]  # 1 d h w
    how = "linear" if len(old) == 1 else mode
    resized = F.interpolate(grid, size=new, mode=how, align_corners=align_corners)[0]
    return resized.flatten(1).T.contiguous().to(table.dtype)


def resize_relative(
    table: Float[Tensor, "r h"], old_window: Sequence[int], new_window: Sequence[int], num_special: int = NUM_SPECIAL_ROWS
) -> Float[Tensor, "q h"]:
    """Resample a relative bias on a grid that is finer near 0, as BEiT does (``unilm beit/run_class_finetuning.py``).

    The differences of the old window are taken for 0, 1, 1 + q, 1 + q + q^2, ... with a q that makes them reach the ends of the new one.
    So near neighbours keep what they learned, and far ones are spread. Between them a cubic spline is read, as SciPy's
    ``RectBivariateSpline`` makes it.

    Args:
        table: as of ``RelativeBias2d``: a row for each difference, then the special ones, which are kept.
        old_window: rows and columns of the table's grid.
        new_window: of the grid to be.
        num_special: rows at the end. Swin has none.

    Raises:
        ValueError: the table is not of that window, or a window is too small for a cubic (fewer than 3 rows or columns).
    """
    old, new = _differences(old_window), _differences(new_window)
    if len(table) != math.prod(old) + num_special:
        raise ValueError(
            f"a table of {len(table)} rows is not of a window of {tuple(old_window)}, which has {math.prod(old) + num_special}."
        )
    if old == new:
        return table
    special = table[len(table) - num_special :]
    grid = table[: math.prod(old)].double().unflatten(0, old)  # rows columns h
    by_row, by_column = (_spline(_knots(before, after), after) for before, after in zip(old, new, strict=True))
    resized = torch.einsum("ri,cj,ijh->rch", by_row.to(grid.device), by_column.to(grid.device), grid)
    return torch.cat([resized.flatten(0, 1).to(table.dtype), special])


def growth(old: int, new: int) -> float:
    """Return the q of ``resize_relative`` for tables of ``old`` and ``new`` differences along an axis, both odd.

    Bisected in [1.01, 1.5] to 1e-6, as published: 27 -> 47: 1.0903.
    """
    low, high = LEAST_RATIO, LARGEST_RATIO
    while high - low > RATIO_PRECISION:
        ratio = (low + high) / 2
        if (1 - ratio ** (old // 2)) / (1 - ratio) > new // 2:
            high = ratio
        else:
            low = ratio
    return ratio


def resize_patches(weight: Float[Tensor, "o c height width"], size: Sequence[int]) -> Float[Tensor, "o c p q"]:
    """Resample the weights of a patch embedding, so that larger patches of a larger image give nearly the same tokens.

    The pseudo-inverse of the resampling of patches (FlexiViT, https://arxiv.org/abs/2212.08013), and not a resampling of the weights.

    Args:
        weight: of a convolution from pixels to tokens.
        size: height and width of a patch to be, in pixels.

    Raises:
        ValueError: a size that is not two numbers of at least 1.
    """
    old, new = tuple(weight.shape[2:]), tuple(size)
    if len(new) != 2 or min(new) < 1:
        raise ValueError(f"size must be height and width of a patch, got {new}.")
    if old == new:
        return weight
    pixels = torch.eye(math.prod(old), device=weight.device).view(-1, 1, *old)
    resampling = F.interpolate(pixels, size=new, mode="bicubic", antialias=True, align_corners=False).flatten(1)  # old pixels, new pixels
    resized = weight.flatten(2).float() @ torch.linalg.pinv(resampling.T)
    return resized.unflatten(2, new).to(weight.dtype)


def _differences(window: Sequence[int]) -> tuple[int, int]:
    if len(window) != 2 or min(window) < 1:
        raise ValueError(f"a window must be rows and columns, at least 1 each, got {tuple(window)}.")
    return 2 * window[0] - 1, 2 * window[1] - 1


def _knots(old: int, new: int) -> Tensor:
    """Return where the differences of an old table lie among those of a new one, ``(old,)`` float64."""
    if old < 4:
        raise ValueError(f"a relative bias of {old} differences along an axis is too small for a cubic: the window must be 3 or more.")
    if old == new:
        return torch.arange(old, dtype=torch.float64) - old // 2
    half = growth(old, new) ** torch.arange(old // 2, dtype=torch.float64)
    after = half.cumsum(0)
    return torch.cat([-after.flip(0), torch.zeros(1, dtype=torch.float64), after])


def _spline(knots: Tensor, count: int) -> Tensor:
    """Return the matrix ``(count, knots)`` that makes values at the ``count`` whole numbers around 0 of values at the knots.

    The cubic spline through them with as many basis splines as knots: its pieces join at all knots but the second and the last but one.
    What lies beyond the outermost knots is taken for them.
    """
    joints = torch.cat([knots[:1].repeat(4), knots[2:-2], knots[-1:].repeat(4)])
    at = (torch.arange(count, dtype=torch.float64) - count // 2).clamp(knots[0], knots[-1])
    return _basis(at, joints) @ torch.linalg.inv(_basis(knots, joints))


def _basis(at: Tensor, joints: Tensor) -> Tensor:
    """Return the cubic basis splines, ``(places, splines)``, by the recurrence of de Boor."""
    last = len(joints) - 5  # the piece that the end belongs to
    piece = (torch.searchsorted(joints, at, right=True) - 1).clamp(3, last)
    basis = F.one_hot(piece, len(joints) - 1).double()
    for degree in range(1, 4):
        width = joints[degree:] - joints[:-degree]
        share = torch.where(width > 0, (at[:, None] - joints[:-degree]) / width.clamp(min=1e-300), 0.0)
        basis = basis[:, :-1] * share[:, :-1] + basis[:, 1:] * (1 - share[:, 1:]) * (width[1:] > 0)
    return basis
