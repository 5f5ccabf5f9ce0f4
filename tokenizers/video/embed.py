"""Cubes of pixels -> tokens.

Letters in shapes: b clips, f frames, c channels, n cubes of all clips, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from multimodal.nn import InterleavedSinCosPosition
from multimodal.protocols import Embed, Tokens

BASE_POSITION = partial(InterleavedSinCosPosition, size=(8, 14, 14))
"""VideoMAE's, for 16 frames of 224 pixels."""


class TubeletEmbed(Embed):
    """Cubes of some frames and square patches through one linear layer (VideoMAE, https://arxiv.org/abs/2203.12602).

    Hidden cubes become a learned mask token, where an objective shows it; VideoMAE itself shows the encoder the visible ones alone.

    Args:
        dim: width of the encoder.
        tubelet_size: frames of a cube.
        patch_size: side of a cube, in pixels.
        channels: of the frames.
        mean: subtracted from pixels scaled to [0, 1]; one number for all channels or one each. VideoMAE: ImageNet's.
        std: divides after that.
        position: builds the positions from the width; called with ``(n, 3)`` times, rows and columns. The default is VideoMAE's for 16
            frames of 224 pixels: sines and cosines of the number of the cube. None: positions enter in the encoder.
    """

    def __init__(
        self,
        dim: int,
        tubelet_size: int = 2,
        patch_size: int = 16,
        channels: int = 3,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        position: Callable[[int], nn.Module] | None = BASE_POSITION,
    ) -> None:
        super().__init__()
        if tubelet_size < 1 or patch_size < 1:
            raise ValueError(f"tubelet_size and patch_size must be at least 1, got {tubelet_size} and {patch_size}.")
        self.tubelet_size, self.patch_size, self.channels = tubelet_size, patch_size, channels
        self.proj = nn.Linear(channels * tubelet_size * patch_size**2, dim)
        self.position = position(dim) if position else None
        self.mask_token = nn.Parameter(torch.zeros(dim))
        pixels = tubelet_size * patch_size**2
        self.register_buffer("mean", torch.tensor(mean).expand(channels).repeat_interleave(pixels), persistent=False)
        self.register_buffer("std", torch.tensor(std).expand(channels).repeat_interleave(pixels), persistent=False)
        nn.init.xavier_uniform_(self.proj.weight)  # as MAE: cubes must not drown in the positions
        nn.init.zeros_(self.proj.bias)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    @property
    def input_size(self) -> int:
        """How many values a cube has: colour by colour, in each its pixels by time, row and column."""
        return self.channels * self.tubelet_size * self.patch_size**2

    def tokens(self, values: Shaped[Tensor, "b f *view"], lengths: Tensor | None = None) -> Tokens:
        """Cut clips, with values of 0 to 255, into cubes: by time, then row by row.

        Raises:
            ValueError: the clip has other channels, or frames and sides that are no multiples of those of a cube.
        """
        if values.ndim != 5:
            raise ValueError(f"clips have 5 axes, got {tuple(values.shape)}: several views of a film are for FineTuning alone.")
        count, frames, channels, height, width = values.shape
        time, side = self.tubelet_size, self.patch_size
        if channels != self.channels or frames % time or height % side or width % side:
            raise ValueError(
                f"clips of {frames} frames of {channels} x {height} x {width} cannot be cut into cubes of {time} frames of "
                f"{self.channels} x {side} x {side}."
            )
        grid = (frames // time, height // side, width // side)
        return Tokens(
            inputs=rearrange(values, "b (t r) c (h p) (w q) -> (b t h w) (c r p q)", r=time, p=side, q=side),
            lengths=torch.full((count,), grid[0] * grid[1] * grid[2], device=values.device),
            coordinates=_grid(*grid, values.device).repeat(count, 1),
            grid=grid,
        )

    def forward(self, tokens: Tokens, shown_as_mask: Tensor | None = None) -> Float[Tensor, "n d"]:
        """Embed cubes; the mask replaces a cube after the projection."""
        x = self.proj((tokens.inputs / 255 - self.mean) / self.std)
        if shown_as_mask is not None:
            x = torch.where(shown_as_mask[:, None], self.mask_token.to(x.dtype), x)
        return x if self.position is None else x + self.position(tokens.coordinates)


def _grid(times: int, rows: int, columns: int, device: torch.device) -> Int[Tensor, "n 3"]:
    return torch.cartesian_prod(*(torch.arange(extent, device=device) for extent in (times, rows, columns)))
