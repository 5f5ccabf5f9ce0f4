"""Positions: added to embedded tokens, or turned into rotations of queries and keys.

Letters in shapes: n tokens, a axes, d width, h heads, e width of a head.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from multimodal.nn.packing import Packing


class SinCosPosition(nn.Module):
    """Fixed sines and cosines of the coordinates, an equal share of the width for each axis (https://arxiv.org/abs/1706.03762; 2-D: MAE).

    Args:
        dim: width; a multiple of ``2 * axes``.
        axes: number of coordinates of a token: 1 for sequences, 2 for images.
        max_period: longest wavelength is ``2 pi max_period``.
    """

    def __init__(self, dim: int, axes: int = 1, max_period: float = 10_000.0) -> None:
        super().__init__()
        if dim % (2 * axes):
            raise ValueError(f"dim must be a multiple of 2 * axes, got dim {dim} and axes {axes}.")
        count = dim // (2 * axes)
        frequencies = torch.exp(-math.log(max_period) * torch.arange(count) / count)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, coordinates: Shaped[Tensor, "n a"]) -> Float[Tensor, "n d"]:
        """Return the position vectors."""
        angles = coordinates[..., None] * self.frequencies  # n a f
        return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)


class SinCosPosition2d(SinCosPosition):
    """Fixed sines and cosines of row and column (MAE, https://arxiv.org/abs/2111.06377).

    Args:
        dim: width; a multiple of 4.
        max_period: longest wavelength is ``2 pi max_period``.
    """

    def __init__(self, dim: int, max_period: float = 10_000.0) -> None:
        super().__init__(dim, axes=2, max_period=max_period)


class LearnedPosition(nn.Module):
    """One learned vector for each place of a grid (ViT, BERT).

    Args:
        dim: width.
        size: extent of the grid along each axis.
    """

    def __init__(self, dim: int, size: Sequence[int]) -> None:
        super().__init__()
        self.size = tuple(size)
        self.table = nn.Parameter(torch.zeros(math.prod(self.size), dim))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, coordinates: Shaped[Tensor, "n a"]) -> Float[Tensor, "n d"]:
        """Return the position vectors; coordinates are integers inside ``size``."""
        index = torch.zeros_like(coordinates[:, 0])
        for axis, extent in enumerate(self.size):
            index = index * extent + coordinates[:, axis]
        return self.table[index]


class RotaryPosition(nn.Module):
    """Rotate pairs of channels of queries and keys by angles that grow with the coordinates (RoFormer, https://arxiv.org/abs/2104.09864).

    Attention then depends on the *difference* of two positions, along each axis by itself. Each axis has an equal share of the channels;
    tokens with fewer coordinates (sequences beside images) leave the channels of the other axes as they are.

    Args:
        dim: width of a head; a multiple of ``2 * axes``.
        axes: number of coordinates that count.
        max_period: longest wavelength is ``2 pi max_period``.
    """

    def __init__(self, dim: int, axes: int = 2, max_period: float = 100.0) -> None:
        super().__init__()
        if dim % (2 * axes):
            raise ValueError(f"the width of a head must be a multiple of 2 * axes, got {dim} and axes {axes}.")
        self.axes = axes
        count = dim // (2 * axes)
        self.register_buffer("frequencies", max_period ** (-torch.arange(count) / count), persistent=False)

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
    """A grouped convolution along each sequence, through GELU, is added to its tokens (wav2vec 2.0, https://arxiv.org/abs/2006.11477; BEATs).

    The weight is normalised over its output and input channels, one length for each place of the kernel, as published.

    Args:
        dim: width.
        kernel_size: tokens that the convolution sees.
        groups: of channels.
    """

    def __init__(self, dim: int, kernel_size: int = 128, groups: int = 16) -> None:
        super().__init__()
        conv = nn.Conv1d(dim, dim, kernel_size, padding=kernel_size // 2, groups=groups)
        nn.init.normal_(conv.weight, std=math.sqrt(4 / (kernel_size * dim)))
        nn.init.zeros_(conv.bias)
        self.conv = parametrizations.weight_norm(conv, dim=2)

    def forward(self, x: Float[Tensor, "n d"], packing: Packing) -> Float[Tensor, "n d"]:
        """Return the tokens, in packed order, with what the convolution makes of them added; padding counts as zeros."""
        if packing.valid is not None:
            x = x * packing.valid.flatten()[:, None]
        if not packing.groups:
            return x
        made = []
        for block in packing.blocks(x):
            convolved = self.conv(block.transpose(1, 2))[..., : block.shape[1]]  # g d l; an even kernel makes one too many
            made.append(F.gelu(convolved).transpose(1, 2))
        return x + packing.join(made)
