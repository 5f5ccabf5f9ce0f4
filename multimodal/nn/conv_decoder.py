"""From the visible tokens of an item to its hidden ones, by convolutions.

Letters in shapes: n tokens of all items, v visible ones, m hidden ones, i items, h rows, w columns, d width of the encoder, e width of the
decoder, c channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.nn.decoder import TokenDecoder, check_grid


class ConvDecoder(TokenDecoder):
    """Convolutions over the grid of an item that fill in its hidden tokens (data2vec 2.0, https://arxiv.org/abs/2212.07525; EAT).

    Each layer is a grouped convolution, a norm over channels without weights, and GELU; where the width stays the same, its input is added.
    Visible tokens are taken as they are. Hidden ones are normal noise in training, drawn anew each time, and in evaluation its mean, 0. As
    published there are no positions, which the border of the grid tells, and no class token; the last projection is the head's.

    Items may have unequal numbers of rows and columns: what is beyond an item counts as zeros in every layer, so that nothing depends on
    the other items.

    Args:
        dim: width of the encoder (filled in by the modality).
        width: channels of each layer. data2vec 2.0 for images, EAT: 768.
        depth: layers. data2vec 2.0 for images, EAT: 6.
        kernel_size: rows and columns that a convolution sees; odd.
        groups: of channels, which ``dim`` and ``width`` are multiples of.
        noise: standard deviation of the noise.

    Raises:
        ValueError: a setting outside its range; when called, tokens without a row and a column.
    """

    def __init__(self, dim: int, width: int = 768, depth: int = 6, kernel_size: int = 3, groups: int = 16, noise: float = 0.01) -> None:
        super().__init__()
        if depth < 1 or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"depth must be at least 1 and kernel_size odd, got {depth} and {kernel_size}.")
        if groups < 1 or dim % groups or width % groups:
            raise ValueError(f"the encoder's width and width must be multiples of groups, got {dim}, {width} and {groups}.")
        if noise < 0:
            raise ValueError(f"noise must be at least 0, got {noise}.")
        self.width, self.noise = width, noise
        self.layers = nn.ModuleList(
            nn.Conv2d(dim if number == 0 else width, width, kernel_size, padding=kernel_size // 2, groups=groups) for number in range(depth)
        )

    def check(self, coordinates: Shaped[Tensor, "n a"]) -> None:
        """Look whether tokens have a row and a column; see ``TokenDecoder.check``."""
        check_grid(coordinates, self)

    def forward(
        self,
        seen: Float[Tensor, "v d"],
        visible: Bool[Tensor, " n"],
        masked: Bool[Tensor, " n"],
        item: Int[Tensor, " n"],
        coordinates: Shaped[Tensor, "n a"],
        class_token: Float[Tensor, "i d"] | None = None,
    ) -> Float[Tensor, "m e"]:
        """Return the hidden tokens; see ``TokenDecoder.forward``. The class token has no effect."""
        self.check(coordinates)
        hidden = seen.new_empty(len(visible), seen.shape[1]).normal_(std=self.noise) if self.training else seen.new_zeros(1, 1)
        tokens = hidden.expand(len(visible), seen.shape[1]).index_copy(0, visible.nonzero()[:, 0], seen)
        grid = _Grid.of(item, coordinates)
        x = grid.laid_out(tokens)
        inside = None if grid.full else grid.laid_out(torch.ones_like(tokens[:, :1]))
        for layer in self.layers:
            made = F.gelu(_normed(layer(x)))
            x = made + x if made.shape == x.shape else made
            x = x if inside is None else x * inside
        return grid.tokens(x)[masked]


class _Grid(NamedTuple):
    """Where tokens lie in an array that holds all items.

    Args:
        place: ``(n,)`` int64, the number of each token's place.
        shape: items, rows and columns.
        full: whether there is a token at every place.
    """

    place: Tensor
    shape: tuple[int, int, int]
    full: bool

    @classmethod
    def of(cls, item: Int[Tensor, " n"], coordinates: Int[Tensor, "n 2"]) -> _Grid:
        items, rows, columns = (int(x) + 1 for x in torch.cat([item[:, None], coordinates], 1).amax(0).tolist())
        place = (item * rows + coordinates[:, 0]) * columns + coordinates[:, 1]
        return cls(place, (items, rows, columns), len(place) == items * rows * columns)

    def laid_out(self, tokens: Float[Tensor, "n c"]) -> Float[Tensor, "i c h w"]:
        """Put tokens at their places; zeros where there is none."""
        items, rows, columns = self.shape
        array = tokens.new_zeros(items * rows * columns, tokens.shape[1]).index_copy(0, self.place, tokens)
        return array.view(items, rows, columns, -1).permute(0, 3, 1, 2)

    def tokens(self, x: Float[Tensor, "i c h w"]) -> Float[Tensor, "n c"]:
        """Undo ``laid_out``."""
        return x.permute(0, 2, 3, 1).flatten(0, 2)[self.place]


def _normed(x: Float[Tensor, "i c h w"]) -> Float[Tensor, "i c h w"]:
    """Normalise over channels."""
    return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)
