"""Levels of several sizes, as segmentation heads for convolutional networks read them, from layers of one size.

Letters in shapes: b images, d width, h rows of patches, w columns.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

NUM_LEVELS = 4


class FeaturePyramid(nn.Module):
    """Four layers of an encoder as the levels of a pyramid: at 4, 2, 1 and 1/2 times the resolution of the patches (BEiT).

    The first level is made by two transposed convolutions of stride 2 with a norm and a GELU between them, the second by one, the last by a
    maximum over 2 x 2 patches. The norm is over the batch; where each process has few images let the trainer make it one over all of them
    (``sync_batchnorm: true``), as BEiT does.

    Args:
        dim: width of the encoder.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.ConvTranspose2d(dim, dim, 2, stride=2), nn.BatchNorm2d(dim), nn.GELU(), nn.ConvTranspose2d(dim, dim, 2, stride=2)
        )
        self.second = nn.ConvTranspose2d(dim, dim, 2, stride=2)
        self.fourth = nn.MaxPool2d(2, ceil_mode=True)  # an odd last row counts too; a single patch stays one

    def forward(self, layers: Sequence[Float[Tensor, "b d h w"]]) -> list[Float[Tensor, "b d _ _"]]:
        """Return the levels, the largest first.

        Args:
            layers: four, the shallowest first.
        """
        first, second, third, fourth = layers
        return [self.first(first), self.second(second), third, self.fourth(fourth)]
