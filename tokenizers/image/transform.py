"""Image files -> two views of one crop: the encoder's and the tokenizer's."""

from __future__ import annotations

import io
import math
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from multimodal.batch import Item
from multimodal.protocols import Transform

MODES = {1: "L", 3: "RGB"}
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # by content: Pillow would run a PostScript file that is named .png


class ImageTransform(Transform):
    """Crop, flip and jitter an image, then resize the same crop for the encoder and for the tokenizer (BEiT ``datasets.py``, unilm).

    Both views are uint8; normalisation happens on the device. In evaluation the view is the largest central square.

    Args:
        size: side of the encoder's view, in pixels (bicubic).
        tokenizer_size: side of the tokenizer's view, in pixels (Lanczos); None: the tokenizer sees the encoder's view.
        channels: 1 for grey, 3 for colour; files are converted.
        scale: range of the crop's share of the image's area. BEiT: 0.08 to 1.
        ratio: range of the crop's width / height.
        flip: probability of a horizontal flip. Set 0 where left and right differ in meaning.
        jitter: brightness, contrast and saturation are multiplied by a factor from ``1 - jitter`` to ``1 + jitter``. BEiT: 0.4.
        max_pixels: larger files are refused before they are decoded.
    """

    extensions: ClassVar[tuple[str, ...]] = ("png", "jpg", "jpeg", "webp", "bmp")

    def __init__(
        self,
        size: int = 224,
        tokenizer_size: int | None = None,
        channels: Literal[1, 3] = 3,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        jitter: float = 0.4,
        max_pixels: int = 50_000_000,
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
        self.scale, self.ratio, self.flip, self.jitter, self.max_pixels = scale, ratio, flip, jitter, max_pixels

    def decode(self, data: bytes) -> Image.Image:
        """Return the image, upright and in ``channels``; where it is transparent, white shows through.

        Raises:
            ValueError: the file is no image of ``FORMATS``, is damaged, or is over ``max_pixels``.
        """
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > self.max_pixels:
                raise ValueError(f"{image.width} x {image.height} pixels are over max_pixels {self.max_pixels}.")
            image.load()
            return _on_white(_eight_bit(ImageOps.exif_transpose(image))).convert(MODES[self.channels])
        except UnidentifiedImageError:
            raise ValueError(f"not an image ({len(data)} bytes, none of {', '.join(FORMATS)}).") from None
        except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise ValueError(f"damaged image: {error}") from error

    def __call__(self, decoded: Image.Image, generator: torch.Generator, train: bool) -> Item:
        """Return ``(channels, size, size)`` uint8, and the tokenizer's view of the same crop."""
        image = self._augment(decoded, generator) if train else decoded
        box = self._crop(image, generator) if train else _central_square(image)
        values = _resize(image, self.size, box, Image.Resampling.BICUBIC)
        if self.tokenizer_size is None:
            return Item(values)
        return Item(values, tokenizer_values=_resize(image, self.tokenizer_size, box, Image.Resampling.LANCZOS))

    def _augment(self, image: Image.Image, generator: torch.Generator) -> Image.Image:
        draws = torch.rand(4, generator=generator).tolist()
        if self.jitter > 0:
            factors = [1 + self.jitter * (2 * draw - 1) for draw in draws[:3]]
            image = TF.adjust_contrast(TF.adjust_brightness(image, factors[0]), factors[1])
            image = TF.adjust_saturation(image, factors[2]) if self.channels == 3 else image
        return TF.horizontal_flip(image) if draws[3] < self.flip else image

    def _crop(self, image: Image.Image, generator: torch.Generator) -> tuple[float, float, float, float]:
        """Draw a box (left, top, right, bottom) with the wanted area and aspect; the central square after ten misfits."""
        for _ in range(10):
            area, aspect, left, top = torch.rand(4, generator=generator).tolist()
            area = (self.scale[0] + area * (self.scale[1] - self.scale[0])) * image.width * image.height
            low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
            aspect = math.exp(low + aspect * (high - low))
            width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < width <= image.width and 0 < height <= image.height:
                left, top = int(left * (image.width - width + 1)), int(top * (image.height - height + 1))
                return left, top, left + width, top + height
        return _central_square(image)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits: Pillow's own conversion would clip all but the darkest 256 values to white."""
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if image.mode.startswith("I;16") else image


def _on_white(image: Image.Image) -> Image.Image:
    """Lay an image with transparency over white: what lies below transparent pixels is often noise, or black."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _central_square(image: Image.Image) -> tuple[float, float, float, float]:
    side = min(image.width, image.height)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return left, top, left + side, top + side


def _resize(image: Image.Image, size: int, box: tuple[float, float, float, float], how: Image.Resampling) -> Tensor:
    pixels = np.asarray(image.resize((size, size), how, box=box))
    return torch.from_numpy(pixels.copy()).view(size, size, -1).permute(2, 0, 1).contiguous()  # h w c -> c h w
