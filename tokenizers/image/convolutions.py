"""The small convolutional encoder and decoder that the trainable tokenizers of images share.

Letters in shapes: b images, c channels.
"""

from __future__ import annotations

from jaxtyping import Float, UInt8
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a 1x1, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch."""
        return x + self.layers(x)


def halving_stages(channels: int, width: int, num_layers: int) -> list[nn.Sequential]:
    """Return stages from ``channels`` to ``width``, each of which halves the sides."""
    return [nn.Sequential(nn.Conv2d(width if i else channels, width, 4, 2, 1), nn.ReLU()) for i in range(num_layers)]


def doubling_stages(channels: int, width: int, num_layers: int) -> list[nn.Sequential]:
    """Return stages from ``channels`` to ``width``, each of which doubles the sides."""
    return [nn.Sequential(nn.ConvTranspose2d(width if i else channels, width, 4, 2, 1), nn.ReLU()) for i in range(num_layers)]


def centred(pixels: UInt8[Tensor, "b c height width"], channels: int, stride: int) -> Float[Tensor, "b c height width"]:
    """Return the pixels in [-1, 1].

    Args:
        pixels: 0 to 255.
        channels: that the tokenizer reads.
        stride: pixels a side of a token.

    Raises:
        ValueError: other channels than the tokenizer's, or sides that the stride does not divide.
    """
    if pixels.shape[1] != channels or pixels.shape[2] % stride or pixels.shape[3] % stride:
        raise ValueError(f"this tokenizer reads {channels} channels and sides that {stride} divides, got {tuple(pixels.shape[1:])}.")
    return pixels.float() / 127.5 - 1
