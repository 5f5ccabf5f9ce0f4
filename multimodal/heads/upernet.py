"""UPerNet: a segmentation head that joins the levels of a pyramid.

Letters in shapes: b images, d width, h rows of patches, w columns, c channels, y and x sides of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.heads.pyramid import NUM_LEVELS, FeaturePyramid
from multimodal.heads.segmentation import DenseLogits, SegmentationHead, check_numbers, classifier

AUXILIARY_LEVEL = 2


class UPerNetHead(SegmentationHead):
    """UPerNet (https://arxiv.org/abs/1807.10221) on four layers of an encoder without levels of its own, as BEiT uses it (mmseg).

    The top level is pooled to several sizes (PSPNet), each level gets what the one above it says, and all are joined at the resolution of
    the largest, four times that of the patches. In training a second classifier, one convolution on the third level, learns beside it.
    Norms are over the batch: a batch of one image cannot be trained on.

    Args:
        dim: width of the encoder.
        num_classes: number of classes.
        channels: width of the head. BEiT: that of the encoder.
        pool_scales: sides of the grids that the top level is pooled to.
        dropout: share of the channels dropped before the classifiers in training.
        auxiliary_channels: width of the second classifier.
        auxiliary_weight: of its loss; 0: there is none.

    Raises:
        ValueError: a number below 1, or a negative weight.
    """

    num_layers = NUM_LEVELS

    def __init__(
        self,
        dim: int,
        num_classes: int,
        channels: int = 512,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
        auxiliary_channels: int = 256,
        auxiliary_weight: float = 0.4,
    ) -> None:
        super().__init__()
        check_numbers(num_classes=num_classes, channels=channels, auxiliary_channels=auxiliary_channels)
        if not pool_scales or min(pool_scales) < 1:
            raise ValueError(f"pool_scales must be sides of at least 1, got {pool_scales}.")
        if auxiliary_weight < 0:
            raise ValueError(f"auxiliary_weight must be at least 0, got {auxiliary_weight}.")
        self.num_classes, self.auxiliary_weight = num_classes, auxiliary_weight
        self.pyramid = FeaturePyramid(dim)
        self.pools = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(side), _conv(dim, channels, 1)) for side in pool_scales)
        self.bottleneck = _conv(dim + len(pool_scales) * channels, channels, 3)
        self.laterals = nn.ModuleList(_conv(dim, channels, 1) for _ in range(NUM_LEVELS - 1))
        self.smooth = nn.ModuleList(_conv(channels, channels, 3) for _ in range(NUM_LEVELS - 1))
        self.fuse = _conv(NUM_LEVELS * channels, channels, 3)
        self.drop, self.classifier = nn.Dropout2d(dropout), classifier(channels, num_classes)
        self.auxiliary = None
        if auxiliary_weight > 0:
            width = auxiliary_channels
            self.auxiliary = nn.Sequential(_conv(dim, width, 3), nn.Dropout2d(dropout), classifier(width, num_classes))

    def forward(self, layers: Sequence[Float[Tensor, "b d h w"]]) -> DenseLogits:
        """Return the logits at four times the resolution of the patches.

        Raises:
            ValueError: one image in training.
        """
        if self.training and len(layers[0]) == 1:
            raise ValueError(
                "UPerNetHead cannot be trained on a batch of one image, whose pooled level is its own mean: "
                "set a larger batch_size, and drop_last if an epoch ends in such a batch."
            )
        levels = self.pyramid(layers)
        auxiliary = None if self.auxiliary is None or not self.training else self.auxiliary(levels[AUXILIARY_LEVEL])
        return DenseLogits(self.classifier(self.drop(self.joined(levels))), auxiliary)

    def joined(self, levels: Sequence[Float[Tensor, "b d _ _"]]) -> Float[Tensor, "b c y x"]:
        """Return all levels in one, at the resolution of the first."""
        top = levels[-1]
        pooled = [_resize(pool(top), top) for pool in self.pools]
        paths = [lateral(level) for lateral, level in zip(self.laterals, levels[:-1], strict=True)]
        paths.append(self.bottleneck(torch.cat([top, *pooled], 1)))
        for below, above in pairwise(range(NUM_LEVELS - 1, -1, -1)):
            paths[above] = paths[above] + _resize(paths[below], paths[above])
        smooth = [conv(path) for conv, path in zip(self.smooth, paths[:-1], strict=True)]
        return self.fuse(torch.cat([_resize(path, smooth[0]) for path in (*smooth, paths[-1])], 1))


def _conv(given: int, made: int, side: int) -> nn.Sequential:
    """Return a convolution with norm and ReLU."""
    layer = nn.Conv2d(given, made, side, padding=side // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(made), nn.ReLU())


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
