"""Positions: added to embedded tokens, or turned into rotations of queries and keys.

Letters in shapes: n tokens, a axes, d width, h heads, e width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.nn.packing import Packing


class SinCosPosition(nn.Module):
    """Fixed sines and cosines of the coordinates, an equal share of the width for each axis (https://arxiv.org/abs/1706.03762; 2-D: MAE).

    Each axis has all its sines, then all its cosines.

    Args:
        dim: width; a multiple of ``2 * axes``.
        axes: number of coordinates of a token: 1 for sequences, 2 for images.
        max_period: longest wavelength is ``2 pi max_period``.

    Raises:
        ValueError: a width that does not fit; or, when called, tokens with another number of coordinates.
    """

    def __init__(self, dim: int, axes: int = 1, max_period: float = 10_000.0) -> None:
        super().__init__()
        if dim % (2 * axes):
            raise ValueError(f"dim must be a multiple of 2 * axes, got dim {dim} and axes {axes}.")
        self.axes = axes
        self.register_buffer("frequencies", _frequencies(dim // (2 * axes), max_period), persistent=False)

    def forward(self, coordinates: Shaped[Tensor, "n a"]) -> Float[Tensor, "n d"]:
        """Return the position vectors."""
        _check_axes(coordinates, self.axes)
        angles = coordinates[..., None] * self.frequencies  # n a f
        return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)


class SinCosPosition2d(SinCosPosition):
    """Fixed sines and cosines of row and column (MAE, https://arxiv.org/abs/2111.06377).

    Args:
        dim: width; a multiple of 4.
        max_period: longest wavelength is ``2 pi max_period``.
        column_first: whether the first half of the width is for the column, as in MAE's published weights; else it is for the row.
    """

    def __init__(self, dim: int, max_period: float = 10_000.0, column_first: bool = False) -> None:
        super().__init__(dim, axes=2, max_period=max_period)
        self.column_first = column_first

    def forward(self, coordinates: Shaped[Tensor, "n a"]) -> Float[Tensor, "n d"]:
        """Return the position vectors."""
        return super().forward(coordinates.flip(1) if self.column_first else coordinates)


class SinCosPosition3d(SinCosPosition):
    """Fixed sines and cosines of time, row and column (V-JEPA, https://arxiv.org/abs/2404.08471).

    Where a width is no multiple of 6, each axis gets the next larger even share, and the last channels are left out.

    Args:
        dim: width.
        max_period: longest wavelength is ``2 pi max_period``.
    """

    def __init__(self, dim: int, max_period: float = 10_000.0) -> None:
        super().__init__(6 * math.ceil(dim / 6), axes=3, max_period=max_period)
        self.dim = dim

    def forward(self, coordinates: Shaped[Tensor, "n a"]) -> Float[Tensor, "n d"]:
        """Return the position vectors."""
        return super().forward(coordinates)[:, : self.dim]


class InterleavedSinCosPosition(nn.Module):
    """Fixed sines and cosines, by turns, of a place's number in its grid (https://arxiv.org/abs/1706.03762; VideoMAE).

    Args:
        dim: width; even.
        size: extent of the grid along each axis; places are counted in row-major order.
        max_period: longest wavelength is ``2 pi max_period``.

    Raises:
        ValueError: an odd width; or, when called, places outside the grid.
    """

    table: Tensor

    def __init__(self, dim: int, size: Sequence[int], max_period: float = 10_000.0) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"dim must be even, got {dim}.")
        self.size = tuple(size)
        angles = torch.arange(math.prod(self.size))[:, None] * _frequencies(dim // 2, max_period, torch.float64)
        table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
        self.register_buffer("table", table.float(), persistent=False)

    def forward(self, coordinates: Shaped[Tensor, "n a"]) -> Float[Tensor, "n d"]:
        """Return the position vectors."""
        return self.table[_place_number(coordinates, self.size)]


class LearnedPosition(nn.Module):
    """One learned vector for each place of a grid (ViT, BERT).

    Args:
        dim: width.
        size: extent of the grid along each axis; places are counted in row-major order.
        offset: rows of the table before that of the first place. BEiT-3 has 2, unused.
        trainable: False: the table is not trained, and is that of ``SinCosPosition`` until weights are loaded (MAE).

    Raises:
        ValueError: when called, places outside the grid.
    """

    def __init__(self, dim: int, size: Sequence[int], offset: int = 0, trainable: bool = True) -> None:
        super().__init__()
        self.size, self.offset = tuple(size), offset
        self.table = nn.Parameter(torch.zeros(math.prod(self.size) + offset, dim), requires_grad=trainable)
        if trainable:
            nn.init.trunc_normal_(self.table, std=0.02)
        else:
            places = torch.cartesian_prod(*(torch.arange(extent) for extent in self.size)).view(-1, len(self.size))
            self.table.data[offset:] = SinCosPosition(dim, len(self.size))(places)

    def forward(self, coordinates: Shaped[Tensor, "n a"]) -> Float[Tensor, "n d"]:
        """Return the position vectors."""
        return self.table[_place_number(coordinates, self.size) + self.offset]


class RotaryPosition(nn.Module):
    """Rotate pairs of channels of queries and keys by angles that grow with the coordinates (RoFormer, https://arxiv.org/abs/2104.09864).

    Attention then depends on the *difference* of two positions, along each axis by itself. Each axis has an equal share of the channels;
    tokens with fewer coordinates (sequences beside images) leave the channels of the other axes as they are. Channel i of a head is paired
    with channel ``i + dim / 2``, as in LLaMA and ModernBERT.

    Args:
        dim: width of a head; a multiple of ``2 * axes``.
        axes: number of coordinates that count.
        max_period: longest wavelength is ``2 pi max_period``. Images: 100. ModernBERT: 10,000 in local, 160,000 in global layers.
    """

    frequencies: Tensor

    def __init__(self, dim: int, axes: int = 2, max_period: float = 100.0) -> None:
        super().__init__()
        if dim % (2 * axes):
            raise ValueError(f"the width of a head must be a multiple of 2 * axes, got {dim} and axes {axes}.")
        self.axes, self.max_period = axes, max_period
        self.register_buffer("frequencies", _frequencies(dim // (2 * axes), max_period), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RotaryPosition:
        """Keep the frequencies in float32 when a model is cast: in bfloat16, far tokens would be turned by anything."""
        super()._apply(fn, recurse)
        self.frequencies = _frequencies(len(self.frequencies), self.max_period).to(self.frequencies.device)
        return self

    def angles(self, coordinates: Shaped[Tensor, "n a"]) -> Float[Tensor, "n 1 f"]:
        """Return the angle of each pair of channels; computed once for all layers and heads.

        Raises:
            ValueError: the tokens have more coordinates than this has axes.
        """
        if coordinates.shape[1] > self.axes:
            raise ValueError(f"tokens have {coordinates.shape[1]} coordinates, the rotary position {self.axes} axes: set axes.")
        places = F.pad(coordinates, (0, self.axes - coordinates.shape[1])).clamp(min=0)  # special tokens, at -1, are not turned
        angles = places[..., None] * self.frequencies  # n a f
        return angles.flatten(1)[:, None]

    def forward(self, x: Float[Tensor, "n h e"], angles: Float[Tensor, "n 1 f"]) -> Float[Tensor, "n h e"]:
        """Rotate the first half of the channels against the second."""
        first, second = x.chunk(2, dim=-1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class ConvPosition(nn.Module):
    """A grouped convolution of each sequence, through GELU, is added to its tokens (wav2vec 2.0, https://arxiv.org/abs/2006.11477; BEATs).

    As published, each place of the kernel has a matrix of one length, ``gain``, and of the direction of ``direction`` (BEATs' ``weight_g``
    and ``weight_v``).

    Args:
        dim: width.
        kernel_size: tokens that the convolution sees: itself, half of them before and, less one where it is even, half after.
        groups: of channels.

    Raises:
        ValueError: a width that is no multiple of the groups.
    """

    def __init__(self, dim: int, kernel_size: int = 128, groups: int = 16) -> None:
        super().__init__()
        if dim % groups:
            raise ValueError(f"dim must be a multiple of groups, got dim {dim} and groups {groups}.")
        self.groups = groups
        self.direction = nn.Parameter(torch.empty(dim, dim // groups, kernel_size))
        nn.init.normal_(self.direction, std=math.sqrt(4 / (kernel_size * dim)))
        self.gain = nn.Parameter(self.direction.detach().norm(dim=(0, 1), keepdim=True))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Float[Tensor, "n d"], packing: Packing) -> Float[Tensor, "n d"]:
        """Return the tokens, in packed order, with what the convolution makes of them added; padding counts as zeros."""
        if packing.valid is not None:
            x = x * packing.valid.flatten()[:, None]
        weight = self.direction * (self.gain / self.direction.norm(dim=(0, 1), keepdim=True))
        padding = weight.shape[2] // 2
        made = []
        for block in packing.blocks(x):
            convolved = F.conv1d(block.transpose(1, 2), weight, self.bias, padding=padding, groups=self.groups)  # g l d -> g d l
            convolved = convolved[..., : block.shape[1]]  # an even kernel makes one too many
            made.append(F.gelu(convolved).transpose(1, 2))
        return x + packing.join(made) if made else x


def can_be_read(x: Tensor) -> bool:
    """Return whether values can be looked at now, and not while a model is compiled, exported or captured."""
    return not (torch.compiler.is_compiling() or torch.jit.is_tracing() or (x.is_cuda and torch.cuda.is_current_stream_capturing()))


def _frequencies(count: int, max_period: float, dtype: torch.dtype = torch.float32) -> Tensor:
    exact = max_period ** (-torch.arange(count, dtype=torch.float64) / count)
    return exact.to(dtype)


def _check_axes(coordinates: Tensor, axes: int) -> None:
    if coordinates.shape[1] != axes:
        raise ValueError(f"tokens have {coordinates.shape[1]} coordinates, the positions {axes} axes.")


def _place_number(coordinates: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return the number of each place in row-major order."""
    _check_axes(coordinates, len(size))
    if coordinates.is_floating_point():
        raise ValueError(f"a table of positions needs whole coordinates, got {coordinates.dtype}.")
    if len(coordinates) and can_be_read(coordinates):
        outside = (coordinates < 0) | (coordinates >= torch.tensor(size, device=coordinates.device))
        if bool(outside.any()):
            place = tuple(coordinates[outside.any(1)][0].tolist())
            raise ValueError(f"a token lies at {place}, outside of the positions' size {size}: set size, or resize the table.")
    index = torch.zeros_like(coordinates[:, 0])
    for axis, extent in enumerate(size):
        index = index * extent + coordinates[:, axis]
    return index
