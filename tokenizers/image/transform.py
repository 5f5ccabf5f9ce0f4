"""Image files -> two views of one crop: the encoder's and the tokenizer's.

Letters in shapes: c channels, h height, w width, s side of a view.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from multimodal.batch import Item
from multimodal.protocols import Moments, Transform
from multimodal.tokenizers.image.decode import MAX_BYTES, MAX_PIXELS, MODES, decode_image
from multimodal.tokenizers.image.describe import describe_image

GREY = (0.299, 0.587, 0.114)  # red, green, blue in a pixel's brightness
SAMPLED = 256  # pixels along the shorter side, at least, that the mean brightness of a large image is taken of


class Box(NamedTuple):
    """A rectangle of pixels."""

    left: int
    top: int
    right: int
    bottom: int


class ImageTransform(Transform):
    """Crop, flip and jitter an image, for the encoder and for the tokenizer from the same crop (BEiT ``datasets.py``, unilm).

    Both views are uint8; normalisation happens on the device. In evaluation the view is the largest central square.

    Departures from BEiT's PIL pipeline, for speed. The encoder's view is resized by torch: it is within 2 of 255 levels of PIL's bicubic
    of the same crop, 0.01 on average. Colours are jittered after the resizing and not before, which differs where a factor clips; the mean
    brightness that contrast is measured from is that of a grid of pixels where a side has 512 or more. A JPEG so large that its smallest
    crop would have twice the pixels a side that a view needs is decoded at a half, a quarter or an eighth: 0.3 levels on average.

    Args:
        size: side of the encoder's view, in pixels (bicubic).
        tokenizer_size: side of the tokenizer's view, in pixels (PIL's Lanczos); None: the tokenizer sees the encoder's view.
        channels: 1 for grey, 3 for colour; files are converted.
        scale: range of the crop's share of the image's area. BEiT: 0.08 to 1.
        ratio: range of the crop's width / height.
        flip: probability of a horizontal flip. Set 0 where left and right differ in meaning.
        jitter: brightness, contrast and saturation are multiplied by a factor from ``1 - jitter`` to ``1 + jitter``. BEiT: 0.4.
        max_pixels: larger files are refused before they are decoded.
        max_bytes: of a file, at most.
    """

    extensions: ClassVar[tuple[str, ...]] = ("png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff")

    def __init__(
        self,
        size: int = 224,
        tokenizer_size: int | None = None,
        channels: Literal[1, 3] = 3,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        jitter: float = 0.4,
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale must be an ascending range in (0, 1], got {scale}.")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"ratio must be an ascending range above 0, got {ratio}.")
        if not 0 <= flip <= 1:
            raise ValueError(f"flip must be a probability in [0, 1], got {flip}.")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be in [0, 1], got {jitter}.")
        if channels not in MODES:
            raise ValueError(f"channels must be 1 (grey) or 3 (colour), got {channels}.")
        self.size, self.tokenizer_size, self.channels = size, tokenizer_size, channels
        self.scale, self.ratio, self.flip, self.jitter = scale, ratio, flip, jitter
        self.max_pixels, self.max_bytes = max_pixels, max_bytes

    @property
    def enough(self) -> int:
        """The shorter side of an image, in pixels, at which its smallest crop still has the pixels of the larger view."""
        slim = max(self.ratio[1], 1 / self.ratio[0], 1.0)
        return math.ceil(max(self.size, self.tokenizer_size or 0) * math.sqrt(slim / self.scale[0]))

    def decode(self, data: bytes) -> UInt8[Tensor, "c h w"]:
        """Return the pixels, upright and in ``channels``; see ``decode_image``.

        Raises:
            ValueError: the file is no image, is damaged, or is over a limit.
        """
        return decode_image(data, self.channels, self.max_pixels, self.max_bytes, enough=self.enough)

    def describe(self, data: bytes) -> Mapping[str, float | Moments]:
        """Return sides, channels and the moments of the pixels; see ``describe_image``."""
        return describe_image(data, self.channels, self.max_pixels, self.max_bytes)

    def example(self) -> Item:
        """Return a black image of the sizes that ``__call__`` returns."""
        views = [torch.zeros(self.channels, side, side, dtype=torch.uint8) for side in (self.size, self.tokenizer_size) if side]
        return Item(views[0], tokenizer_values=views[1] if len(views) > 1 else None)

    def __call__(self, decoded: UInt8[Tensor, "c h w"], generator: torch.Generator, train: bool) -> Item:
        """Return ``(channels, size, size)`` uint8, and the tokenizer's view of the same crop."""
        height, width = decoded.shape[1:]
        if not train:
            return self._views(decoded, central_square(height, width))
        draws = torch.rand(4, generator=generator).tolist()
        item = self._views(decoded, self._crop(height, width, generator))
        factors = [1 + self.jitter * (2 * draw - 1) for draw in draws[:3]]
        mean = _mean_brightness(decoded, factors[0]) if self.jitter > 0 else 0.0
        second = item.tokenizer_values
        return Item(
            self._augment(item.values, factors, mean, draws[3]),
            tokenizer_values=None if second is None else self._augment(second, factors, mean, draws[3]),
        )

    def _views(self, image: Tensor, box: Box) -> Item:
        crop = image[:, box.top : box.bottom, box.left : box.right]
        second = None if self.tokenizer_size is None else _lanczos(crop, self.tokenizer_size)
        return Item(bicubic(crop, self.size), tokenizer_values=second)

    def _augment(self, view: Tensor, factors: list[float], mean: float, draw: float) -> Tensor:
        view = _jitter(view, factors, mean) if self.jitter > 0 else view
        return view.flip(-1) if draw < self.flip else view

    def _crop(self, height: int, width: int, generator: torch.Generator) -> Box:
        """Draw a box with the wanted area and aspect; the central square after ten misfits."""
        for _ in range(10):
            area, aspect, left, top = torch.rand(4, generator=generator).tolist()
            area = (self.scale[0] + area * (self.scale[1] - self.scale[0])) * width * height
            low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
            aspect = math.exp(low + aspect * (high - low))
            crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                left, top = int(left * (width - crop_width + 1)), int(top * (height - crop_height + 1))
                return Box(left, top, left + crop_width, top + crop_height)
        return central_square(height, width)


def central_square(height: int, width: int) -> Box:
    """Return the largest square in the middle of an image."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return Box(left, top, left + side, top + side)


def bicubic(crop: UInt8[Tensor, "c h w"], size: int) -> UInt8[Tensor, "c s s"]:
    """Resize to a square, without aliasing."""
    return F.interpolate(crop[None], size=(size, size), mode="bicubic", antialias=True)[0].contiguous()


def _lanczos(crop: UInt8[Tensor, "c h w"], size: int) -> UInt8[Tensor, "c s s"]:
    return from_picture(to_picture(crop).resize((size, size), Image.Resampling.LANCZOS))


def to_picture(view: UInt8[Tensor, "c h w"]) -> Image.Image:
    """Return an image of 1 or 3 channels as PIL has it."""
    pixels = view.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels if len(view) == 3 else pixels[..., 0])


def from_picture(picture: Image.Image) -> UInt8[Tensor, "c h w"]:
    """Undo ``to_picture``."""
    return torch.from_numpy(np.array(picture)).view(picture.height, picture.width, -1).permute(2, 0, 1).contiguous()  # h w c -> c h w


def _mean_brightness(image: UInt8[Tensor, "c h w"], brightness: float) -> float:
    """Return the mean grey value after the change of brightness; contrast is measured from it."""
    step = max(1, min(image.shape[1:]) // SAMPLED)
    means = image[:, ::step, ::step].float().mul_(brightness).clamp_(max=255).mean((1, 2)).tolist()
    return means[0] if len(means) == 1 else sum(weight * mean for weight, mean in zip(GREY, means, strict=True))


def _jitter(view: UInt8[Tensor, "c h w"], factors: list[float], mean: float) -> UInt8[Tensor, "c h w"]:
    """Scale brightness, contrast (around ``mean``) and, of colours, saturation (around grey), clipping after each."""
    brightness, contrast, saturation = factors
    values = view.flatten(1).float().mul_(brightness).clamp_(max=255)
    values.mul_(contrast).add_((1 - contrast) * mean).clamp_(0, 255)
    if len(values) == 3:
        grey = torch.tensor(GREY) @ values
        values.mul_(saturation).add_(grey, alpha=1 - saturation).clamp_(0, 255)
    return values.round_().to(torch.uint8).view_as(view)
