"""A teacher that needs no weights: colours and histograms of gradients.

Letters in shapes: b images, c channels, n patches of all images, d width.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from multimodal.protocols import Teacher

DIRECTIONS, CELLS, GAIN = 8, 2, 20.0


class GradientTeacher(Teacher):
    """What can be said of a patch without learning: mean colour and directions of gradients, of the patch and of its neighbourhood.

    Of each patch 3 colours and, in each of 2 x 2 cells, the mean strength of the gradients in 8 directions (histograms of oriented
    gradients, https://doi.org/10.1109/CVPR.2005.177); of the 3 x 3 patches around it 3 colours and 8 directions.

    Args:
        patch_size: side of a patch, in pixels; even.
    """

    def __init__(self, patch_size: int = 8) -> None:
        super().__init__()
        self.patch_size = patch_size

    @property
    def dim(self) -> int:
        """46."""
        return 2 * 3 + DIRECTIONS * (CELLS**2 + 1)

    @torch.no_grad()
    def forward(self, values: UInt8[Tensor, "b c height width"]) -> Float[Tensor, "n d"]:
        """Return the features of the patches, row by row, image after image."""
        pixels = values.float() / 255
        colour = F.avg_pool2d(pixels, self.patch_size) * 2 - 1
        cells = F.avg_pool2d(_gradients(pixels), self.patch_size // CELLS) * GAIN
        fine = F.pixel_unshuffle(cells, CELLS)  # the cells of a patch become channels
        wide = F.avg_pool2d(torch.cat([colour, F.avg_pool2d(cells, CELLS)], 1), 3, 1, 1, count_include_pad=False)
        return torch.cat([colour, fine, wide], 1).movedim(1, -1).flatten(0, 2)


def _gradients(pixels: Float[Tensor, "b c height width"]) -> Float[Tensor, "b 8 height width"]:
    """Return the strength of the gradient of the brightness, in the channel of its direction."""
    grey = F.pad(pixels.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across, down = grey[:, :, 1:-1, 2:] - grey[:, :, 1:-1, :-2], grey[:, :, 2:, 1:-1] - grey[:, :, :-2, 1:-1]
    direction = ((torch.atan2(down, across) / (2 * math.pi) + 0.5) * DIRECTIONS).long().clamp(max=DIRECTIONS - 1)
    strength = (across.square() + down.square()).sqrt()
    return torch.zeros(len(pixels), DIRECTIONS, *pixels.shape[2:], device=pixels.device).scatter_(1, direction, strength)
