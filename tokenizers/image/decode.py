"""Image files -> pixels: every kind of file in one form, limits read from the header first.

Letters in shapes: c channels, h height, w width.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

MODES = {1: "L", 3: "RGB"}
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # by content: Pillow would run a PostScript file that is named .png
ORIENTATION = 0x0112  # the Exif tag
MAX_PIXELS, MAX_SIDE, MAX_BYTES = 50_000_000, 65_535, 2**27
REDUCTIONS = (8, 4, 2)  # what a JPEG's cosine transform can be read at
DAMAGE = (OSError, SyntaxError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, struct.error, RuntimeError)


def decode_image(
    data: bytes,
    channels: Literal[1, 3] = 3,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    max_side: int = MAX_SIDE,
    enough: int | None = None,
) -> UInt8[Tensor, "c h w"]:
    """Return the pixels of a PNG, JPEG, WebP, BMP, GIF or TIFF file, upright; its contents tell which it is, its name is not asked.

    Where the file is transparent, white shows through. Of several pictures the first is read. 16-bit values are shifted to 8 bits. Of the
    32-bit ones, integers up to 255 are kept, up to 65535 are shifted by 8 and larger ones by 24 bits; floats up to 1 are multiplied by 255,
    up to 255 are kept, up to 65535 are divided by 257. The channels of the result may lie innermost in memory.

    Args:
        data: the file.
        channels: 1 for grey, 3 for colour; files are converted.
        max_pixels: width times height; larger files are refused before they are decoded.
        max_bytes: of the file, at most.
        max_side: longest width or height, in pixels.
        enough: a shorter side, in pixels, that will do: a JPEG of at least 2, 4 or 8 times as much is read at that fraction of its size,
            twice as fast. None: always at full size.

    Raises:
        ValueError: the file is no image of these formats, is damaged or cut off, over a limit, or has values outside those above.
    """
    if len(data) > max_bytes:
        raise ValueError(f"an image of {len(data)} bytes is over max_bytes {max_bytes}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of sizes and of damage that are judged here
        return _decode(data, channels, enough, max_pixels, max_side)


def _decode(data: bytes, channels: Literal[1, 3], enough: int | None, max_pixels: int, max_side: int) -> Tensor:
    with refusals("image", max_pixels, unknown=f"not an image ({len(data)} bytes, none of {', '.join(FORMATS)})."):
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    _check_size(image, max_pixels, max_side)
    with refusals("image", max_pixels):
        return _pixels(image, data, channels, enough)


@contextmanager
def refusals(kind: str, max_pixels: int, unknown: str = "") -> Iterator[None]:
    """Say of a file what keeps Pillow from reading it.

    Args:
        kind: what messages call the file.
        max_pixels: the limit that they name where Pillow's own is passed.
        unknown: what to say of a file of another format; "": that it is damaged.

    Raises:
        ValueError: something does.
    """
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ValueError(f"this {kind} is over max_pixels {max_pixels}: {error}") from None
    except DAMAGE as error:
        if unknown and isinstance(error, UnidentifiedImageError):
            raise ValueError(unknown) from None
        raise ValueError(f"damaged {kind}: {_said(error)}") from error


def _check_size(image: Image.Image, max_pixels: int, max_side: int) -> None:
    width, height = image.size
    if not (width and height):
        raise ValueError(f"damaged image: {width} x {height} pixels.")
    if width * height > max_pixels:
        raise ValueError(f"{width} x {height} pixels are over max_pixels {max_pixels}.")
    if max(width, height) > max_side:
        raise ValueError(f"{width} x {height} pixels are over max_side {max_side}.")


def _pixels(image: Image.Image, data: bytes, channels: Literal[1, 3], enough: int | None) -> Tensor:
    upright = image.getexif().get(ORIENTATION, 1) not in range(2, 9)
    jpeg = image.format in ("JPEG", "MPO")
    reduction = _reduction(min(image.size), enough) if jpeg else 1
    if reduction > 1:
        image.draft(None, (image.width // reduction, image.height // reduction))
    elif jpeg and upright and (image.mode == "L" or (image.mode == "RGB" and channels == 3)):  # torchvision's own grey differs by up to 13
        mode = ImageReadMode.GRAY if channels == 1 else ImageReadMode.RGB
        return decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=mode)
    image.load()
    image = _on_white(_eight_bit(image if upright else ImageOps.exif_transpose(image))).convert(MODES[channels])
    return torch.from_numpy(np.array(image)).view(image.height, image.width, channels).permute(2, 0, 1)  # h w c -> c h w


def _reduction(side: int, enough: int | None) -> int:
    return 1 if enough is None else next((factor for factor in REDUCTIONS if side // factor >= enough), 1)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale wide values to 8 bits: Pillow's own conversion would clip all but the darkest 256 of them to white."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode not in ("I", "F"):
        return image
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    limit = 65_535 if image.mode == "F" else 2**31 - 1
    if not 0 <= low <= high <= limit:  # not so either where a value is NaN
        raise ValueError(f"its values reach from {low} to {high}; they must be finite and in [0, {limit}].")
    if image.mode == "F":
        scale = 255.0 if high <= 1 else 1.0 if high <= 255 else 1 / 257
        return Image.fromarray((values * scale).round().astype(np.uint8))
    return Image.fromarray((values >> (0 if high <= 255 else 8 if high <= 65_535 else 24)).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    """Lay an image with transparency over white: what lies below transparent pixels is often noise, or black."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _said(error: BaseException) -> str:
    """Return the first line of what a library said, and the kind of error where it said nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
