"""Measurements of an image file."""

from __future__ import annotations

import io
from typing import Literal

from PIL import Image

from multimodal.protocols import Moments
from multimodal.tokenizers.image.decode import FORMATS, MAX_BYTES, MAX_PIXELS, decode_image


def describe_image(
    data: bytes, channels: Literal[1, 3] = 3, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> dict[str, float | Moments]:
    """Return width and height of the upright image, the channels of the file, and the moments of its pixels in [0, 1].

    Args:
        data: the file.
        channels: that the pixels are converted to before they are measured.
        max_pixels: larger files are refused.
        max_bytes: of the file, at most.

    Raises:
        ValueError: as ``decode_image``.
    """
    pixels = decode_image(data, channels, max_pixels, max_bytes)
    height, width = pixels.shape[1:]
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        stored = len(image.getbands())
    values = pixels.flatten(1).double()  # sums of whole numbers, so exact
    sums, squares = values.sum(1) / 255, values.square().sum(1) / 255**2
    moments = Moments(width * height, tuple(sums.tolist()), tuple(squares.tolist()))
    return {"width": width, "height": height, "channels": stored, "pixels": moments}
