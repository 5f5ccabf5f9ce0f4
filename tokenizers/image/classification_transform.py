"""Image files -> views to learn and to tell classes from.

Letters in shapes: c channels, h height, w width, s side of the view.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from multimodal.batch import Item
from multimodal.tokenizers.image.augment import RandAugment, RandomErasing
from multimodal.tokenizers.image.decode import MAX_BYTES, MAX_PIXELS
from multimodal.tokenizers.image.transform import ImageTransform, bicubic, central_square

SMALL_SHARE = 224 / 256  # of the side that timm, and BEiT below WHOLE_FROM pixels, keep of an image to tell
WHOLE_FROM = 384


class ClassificationTransform(ImageTransform):
    """Crop, flip, RandAugment and erase an image in training; in evaluation cut out its middle (timm, BEiT ``run_class_finetuning.py``).

    Args:
        size: side of the view, in pixels.
        channels: 1 for grey, 3 for colour; files are converted.
        scale: range of the crop's share of the image's area; (1, 1), with such a ratio: the whole of a square image. BEiT, MAE: 0.08 to 1.
        ratio: range of the crop's width / height.
        flip: probability of a horizontal flip. Set 0 where left and right differ in meaning.
        jitter: as of ``ImageTransform``. timm leaves it out where there is RandAugment.
        augment: operations on the crop; None: none.
        erase: noise in a rectangle, last of all; None: none.
        evaluation_crop: share of the shorter side that the central square has in evaluation, in (0, 1]; None: 224/256 below 384 pixels, the
            whole from 384, as BEiT.
        max_pixels: larger files are refused before they are decoded.
        max_bytes: of a file, at most.
    """

    def __init__(
        self,
        size: int = 224,
        channels: Literal[1, 3] = 3,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        jitter: float = 0.0,
        augment: RandAugment | None = None,
        erase: RandomErasing | None = None,
        evaluation_crop: float | None = None,
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        super().__init__(size, None, channels, scale, ratio, flip, jitter, max_pixels, max_bytes)
        if evaluation_crop is None:
            evaluation_crop = SMALL_SHARE if size < WHOLE_FROM else 1.0
        if not 0 < evaluation_crop <= 1:
            raise ValueError(f"evaluation_crop must be in (0, 1], got {evaluation_crop}.")
        self.augment, self.erase, self.evaluation_crop = augment, erase, evaluation_crop

    @property
    def enough(self) -> int:
        """The shorter side of an image, in pixels, at which neither the smallest crop nor the middle lacks pixels."""
        return max(super().enough, self._resized)

    @property
    def _resized(self) -> int:
        """Side of the whole square in evaluation, of which the view is the middle."""
        return math.floor(self.size / self.evaluation_crop)

    def __call__(self, decoded: UInt8[Tensor, "c h w"], generator: torch.Generator, train: bool) -> Item:
        """Return ``(channels, size, size)`` uint8."""
        if not train:
            return Item(self._middle(decoded))
        view = super().__call__(decoded, generator, train).values
        view = view if self.augment is None else self.augment(view, generator)
        return Item(view if self.erase is None else self.erase(view, generator))

    def _middle(self, decoded: UInt8[Tensor, "c h w"]) -> UInt8[Tensor, "c s s"]:
        """Resize the largest central square, then cut: what lies outside the square could never be in the view."""
        left, top, right, bottom = central_square(*decoded.shape[1:])
        whole = bicubic(decoded[:, top:bottom, left:right], self._resized)
        start = round((self._resized - self.size) / 2)
        return whole[:, start : start + self.size, start : start + self.size].contiguous()
