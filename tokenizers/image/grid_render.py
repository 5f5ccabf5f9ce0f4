"""What pictures of patches have in common."""

from __future__ import annotations

from jaxtyping import UInt8
from torch import Tensor

from multimodal.protocols import Renderer

GREY = 128
"""Of what is hidden."""


class GridRenderer(Renderer):
    """Draws images that are cut into a grid of patches.

    Args:
        grid: rows and columns of patches.
        min_size: small images are enlarged by a whole factor to at least this side, in pixels.
    """

    def __init__(self, grid: tuple[int, int] = (14, 14), min_size: int = 96) -> None:
        self.grid, self.min_size = grid, min_size

    def check_grid(self, num_tokens: int) -> None:
        """Refuse an image of another number of patches.

        Raises:
            ValueError: it has.
        """
        if num_tokens != self.grid[0] * self.grid[1]:
            name = type(self).__name__
            raise ValueError(
                f"the renderer's grid {self.grid} does not fit an image of {num_tokens} tokens: set the grid of the {name} to the rows and "
                "columns of patches."
            )


def enlarged(pixels: UInt8[Tensor, "c height width"], min_size: int) -> UInt8[Tensor, "3 rows columns"]:
    """Return a grey or coloured picture in colour, a whole number of times as large.

    Args:
        pixels: of the picture.
        min_size: the result has at least this height, in pixels.
    """
    factor = max(1, -(-min_size // pixels.shape[1]))
    return pixels.expand(3, -1, -1).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
