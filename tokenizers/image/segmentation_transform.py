"""Image files and their masks -> views to learn the class of each pixel from.

Letters in shapes: c channels, h height, w width, y and x sides of the mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int16, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from multimodal.batch import Item
from multimodal.protocols import LabelledTransform, Moments
from multimodal.tokenizers.image.decode import MAX_PIXELS, MODES, decode_image
from multimodal.tokenizers.image.describe import describe_image
from multimodal.tokenizers.image.mask import NO_CLASS, MaskReader
from multimodal.tokenizers.image.photometric import PhotometricDistortion
from multimodal.tokenizers.image.transform import ImageTransform, from_picture, to_picture

TRIES = 10
LONGEST = 4  # the longer side of a resized image is at most so many times the wanted shorter one
GREY = 128  # around an image that is smaller than its view


class Crop(NamedTuple):
    """A rectangle of a resized image, in shares of its sides, and the pixels that it is to have."""

    left: float
    top: float
    right: float
    bottom: float
    width: int
    height: int


class SegmentationTransform(LabelledTransform):
    """Resize, crop, flip and distort an image, and cut its mask out of the same box (mmseg's pipeline, as BEiT uses it on ADE20K).

    In training the image is resized so that its shorter side has ``shorter_side`` pixels (but the longer at most 4 times as many) times a
    random factor, a square is cut out, and what is missing of it is filled with grey and counts for nothing. In evaluation the whole image
    is resized so, without the factor, and the mask keeps its own size: a model is scored on the pixels of the file. So images of unequal
    size cannot share a batch of evaluation: set the data module's ``eval_batch_size`` to 1.

    Image and mask lie on each other as the file shows the image upright (Exif). A sample without a mask counts for nothing.

    Departure from mmseg: images are resized by Pillow (bicubic, antialiased) and not by OpenCV (bilinear).

    Args:
        size: side of the view in training, in pixels.
        shorter_side: of the resized image, in pixels; None: ``size``.
        scale: range of the random factor.
        max_class_share: a crop in which one class has at least this share of the labelled pixels is drawn again, up to 10 times; 1: only
            where there is no other class.
        flip: probability of a horizontal flip. Set 0 where left and right differ in meaning.
        jitter: strength of the changes of colour, in [0, 1]; see ``PhotometricDistortion``.
        channels: 1 for grey, 3 for colour; files are converted.
        masks: how masks are read; None: ``mask.png``, where 255 counts for nothing.
        max_pixels: larger images are refused before they are decoded.

    Raises:
        ValueError: a setting outside its range.
    """

    extensions: ClassVar[tuple[str, ...]] = ImageTransform.extensions

    def __init__(
        self,
        size: int = 512,
        shorter_side: int | None = None,
        scale: tuple[float, float] = (0.5, 2.0),
        max_class_share: float = 0.75,
        flip: float = 0.5,
        jitter: float = 1.0,
        channels: Literal[1, 3] = 3,
        masks: MaskReader | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if size < 1 or (shorter_side is not None and shorter_side < 1):
            raise ValueError(f"size and shorter_side must be at least 1, got {size} and {shorter_side}.")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale must be an ascending range above 0, got {scale}.")
        if not 0 < max_class_share <= 1:
            raise ValueError(f"max_class_share must be in (0, 1], got {max_class_share}.")
        if not 0 <= flip <= 1:
            raise ValueError(f"flip must be a probability in [0, 1], got {flip}.")
        if channels not in MODES:
            raise ValueError(f"channels must be 1 (grey) or 3 (colour), got {channels}.")
        self.size, self.shorter_side = size, size if shorter_side is None else shorter_side
        self.scale, self.max_class_share = scale, max_class_share
        self.flip, self.distortion, self.channels, self.max_pixels = flip, PhotometricDistortion(jitter), channels, max_pixels
        self.masks = masks or MaskReader()
        self.extensions = tuple(name for name in ImageTransform.extensions if name not in self.masks.fields)  # type: ignore[misc]

    @property
    def label_extensions(self) -> tuple[str, ...]:  # type: ignore[override]
        """The fields of the masks."""
        return self.masks.fields

    def decode(self, data: bytes) -> UInt8[Tensor, "c h w"]:
        """Return the pixels, upright and in ``channels``; see ``decode_image``.

        Raises:
            ValueError: the file is no image, is damaged, or is over a limit.
        """
        return decode_image(data, self.channels, self.max_pixels)

    def decode_labels(self, data: bytes) -> Int16[Tensor, "y x"]:
        """Return the class of each pixel, -1 where it counts for nothing.

        Raises:
            ValueError: see ``MaskReader``.
        """
        return self.masks(data)

    def describe(self, data: bytes) -> Mapping[str, float | Moments]:
        """Return sides, channels and the moments of the pixels; see ``describe_image``."""
        return describe_image(data, self.channels, self.max_pixels)

    def example(self) -> Item:
        """Return a black image of the size of a view in training, all of class 0."""
        sides = self.size, self.size
        return Item(torch.zeros(self.channels, *sides, dtype=torch.uint8), labels=torch.zeros(sides, dtype=torch.int16))

    def labelled(
        self, decoded: UInt8[Tensor, "c h w"], labels: Int16[Tensor, "y x"] | None, generator: torch.Generator, train: bool
    ) -> Item:
        """Return the view and the classes of its pixels.

        Raises:
            ValueError: image and mask differ in size.
        """
        height, width = decoded.shape[1:]
        if labels is None:
            labels = torch.full((height, width), NO_CLASS, dtype=torch.int16)
        if labels.shape != (height, width):
            raise ValueError(f"the mask has {labels.shape[1]} x {labels.shape[0]} pixels, the image {width} x {height}.")
        if not train:
            return Item(_resized(decoded, Crop(0, 0, 1, 1, *self._sides(height, width, 1.0))), labels=labels)
        factor, flip = torch.rand(2, generator=generator).tolist()
        crop, classes = self._crop(labels, self.scale[0] + factor * (self.scale[1] - self.scale[0]), generator)
        view = self.distortion(_resized(decoded, crop), generator)
        if flip < self.flip:
            view, classes = view.flip(-1), classes.flip(-1)
        missing = 0, self.size - crop.width, 0, self.size - crop.height
        return Item(F.pad(view, missing, value=GREY).contiguous(), labels=F.pad(classes, missing, value=NO_CLASS).contiguous())

    def _sides(self, height: int, width: int, factor: float) -> tuple[int, int]:
        """Return width and height of the resized image."""
        factor *= min(self.shorter_side / min(height, width), LONGEST * self.shorter_side / max(height, width))
        return max(1, int(width * factor + 0.5)), max(1, int(height * factor + 0.5))

    def _crop(self, labels: Tensor, factor: float, generator: torch.Generator) -> tuple[Crop, Tensor]:
        """Draw a box in which no class has too large a share; the last of ten tries as it is."""
        width, height = self._sides(labels.shape[0], labels.shape[1], factor)
        own = min(self.size, width), min(self.size, height)
        for _ in range(TRIES):
            x, y = torch.rand(2, generator=generator).tolist()
            left, top = int(x * (width - own[0] + 1)), int(y * (height - own[1] + 1))
            crop = Crop(left / width, top / height, (left + own[0]) / width, (top + own[1]) / height, *own)
            classes = _nearest(labels, crop)
            if self._is_mixed(classes):
                break
        return crop, classes

    def _is_mixed(self, classes: Tensor) -> bool:
        """Return whether there are several classes, none of them with too large a share."""
        counts = torch.bincount(classes[classes != NO_CLASS].long())
        return bool((counts > 0).sum() > 1) and int(counts.max()) / int(counts.sum()) < self.max_class_share


def _resized(image: UInt8[Tensor, "c h w"], crop: Crop) -> UInt8[Tensor, "c _ _"]:
    """Cut a box out of an image, whose edges may lie within pixels, and give it its size."""
    height, width = image.shape[1:]
    box = crop.left * width, crop.top * height, min(crop.right * width, width), min(crop.bottom * height, height)
    if (crop.width, crop.height) == (width, height) and crop[:4] == (0, 0, 1, 1):
        return image.contiguous()
    return from_picture(to_picture(image).resize((crop.width, crop.height), Image.Resampling.BICUBIC, box=box))


def _nearest(labels: Int16[Tensor, "y x"], crop: Crop) -> Int16[Tensor, "_ _"]:
    """Cut the same box out of a mask: the class of the pixel in which the middle of each new one lies."""
    height, width = labels.shape
    rows = crop.top + (np.arange(crop.height) + 0.5) / crop.height * (crop.bottom - crop.top)
    columns = crop.left + (np.arange(crop.width) + 0.5) / crop.width * (crop.right - crop.left)
    rows, columns = (rows * height).astype(np.int64).clip(0, height - 1), (columns * width).astype(np.int64).clip(0, width - 1)
    return labels[torch.from_numpy(rows)][:, torch.from_numpy(columns)]
