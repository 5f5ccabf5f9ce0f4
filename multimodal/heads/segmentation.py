"""From the tokens of images to a class for each place.

Letters in shapes: b images, d width, h rows of patches, w columns, c classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multimodal.recorded import Recorded


class DenseLogits(NamedTuple):
    """What a segmentation head says.

    Args:
        logits: ``(b, c, rows, columns)``, on whatever grid the head works; to be resized to the pixels.
        auxiliary: the same of a second classifier that only training reads; None: there is none.
    """

    logits: Tensor
    auxiliary: Tensor | None = None


class SegmentationHead(Recorded, nn.Module, ABC):
    """A classifier of places. Its constructor takes the width of the encoder first."""

    num_classes: int
    num_layers: int
    """The number of layers that it reads."""
    auxiliary_weight: float = 0.0
    """Weight of the auxiliary classifier in the loss."""

    @abstractmethod
    def forward(self, layers: Sequence[Float[Tensor, "b d h w"]]) -> DenseLogits:
        """Return the logits; the auxiliary ones in training alone.

        Args:
            layers: the tokens after some layers of the encoder, on their grid, the shallowest first.
        """


class LinearSegmentation(SegmentationHead):
    """One linear layer for each patch, over normalised tokens (as DINOv2 probes, https://arxiv.org/abs/2304.07193).

    Args:
        dim: width of the encoder.
        num_classes: number of classes.
        num_layers: so many layers are joined.
        dropout: share of the values dropped in training.

    Raises:
        ValueError: a number below 1.
    """

    def __init__(self, dim: int, num_classes: int, num_layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        check_numbers(num_classes=num_classes, num_layers=num_layers)
        self.num_classes, self.num_layers = num_classes, num_layers
        self.norm, self.drop = nn.BatchNorm2d(dim * num_layers), nn.Dropout2d(dropout)
        self.classifier = classifier(dim * num_layers, num_classes)

    def forward(self, layers: Sequence[Float[Tensor, "b d h w"]]) -> DenseLogits:
        """Return the logits of each patch."""
        return DenseLogits(self.classifier(self.drop(self.norm(torch.cat(list(layers), 1)))))


def classifier(width: int, num_classes: int) -> nn.Conv2d:
    """Return a linear layer for each place that starts near 0 (mmseg)."""
    layer = nn.Conv2d(width, num_classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def check_numbers(**numbers: int) -> None:
    """Refuse numbers below 1.

    Raises:
        ValueError: there is one.
    """
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}.")
