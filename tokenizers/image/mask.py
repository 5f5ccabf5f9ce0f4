"""Files with the class of each pixel.

Letters in shapes: h height, w width.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int16
from PIL import Image
from torch import Tensor

from multimodal.tokenizers.image.decode import MAX_BYTES, MAX_PIXELS, refusals

NO_CLASS = -1
MAX_CLASSES = 2**15
MODES = ("1", "L", "P", "I;16", "I")
STRETCHED = {"L;2": 85, "L;4": 17}  # Pillow multiplies grey values of 2 and 4 bits by this, to reach 255


class MaskReader:
    """Read masks: PNG files, grey with 8 or 16 bits (or fewer) or with a palette, in which the value of a pixel is its class.

    Args:
        fields: of the shards; the first that a sample has is read.
        ignore: the value of pixels that count for nothing; None: there is none. Cityscapes, VOC, ADE20K: 255.
        zero_is_ignored: whether 0 counts for nothing too, so that value 1 is class 0, 2 class 1 ... (ADE20K: 151 values, 150 classes).
        max_pixels: larger files are refused before they are decoded.

    Raises:
        ValueError: no fields, or an ``ignore`` outside 0 to 65535.
    """

    def __init__(
        self,
        fields: Sequence[str] = ("mask.png",),
        ignore: int | None = 255,
        zero_is_ignored: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if isinstance(fields, str) or not fields:
            raise ValueError(f"fields must be a list of names such as mask.png, got {fields!r}.")
        if ignore is not None and not 0 <= ignore < 2**16:
            raise ValueError(f"ignore must be a value of 0 to 65535, or null, got {ignore}.")
        self.fields, self.ignore, self.zero_is_ignored, self.max_pixels = tuple(fields), ignore, zero_is_ignored, max_pixels

    def __call__(self, data: bytes) -> Int16[Tensor, "h w"]:
        """Return the class of each pixel, -1 where it counts for nothing.

        Raises:
            ValueError: the file is no PNG, is in colours, damaged or over a limit, or has a class of 32768 or more.
        """
        values = _values(data, self.max_pixels)
        classes = values - int(self.zero_is_ignored)
        if self.ignore is not None:
            classes[values == self.ignore] = NO_CLASS
        if classes.size and int(classes.max()) >= MAX_CLASSES:
            raise ValueError(f"a mask has class {int(classes.max())}; classes must be below {MAX_CLASSES}.")
        return torch.from_numpy(classes.astype(np.int16))


def _values(data: bytes, max_pixels: int) -> np.ndarray:
    """Return the values in a file, ``(h, w)`` int32."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"a mask of {len(data)} bytes is over {MAX_BYTES}.")
    unknown = f"a mask must be a PNG file: other formats change the values; this one ({len(data)} bytes) is none."
    with refusals("mask", max_pixels, unknown), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of sizes that are judged here
        image = Image.open(io.BytesIO(data), formats=("PNG",))
    if image.width * image.height > max_pixels:
        raise ValueError(f"a mask of {image.width} x {image.height} pixels is over max_pixels {max_pixels}.")
    if image.mode not in MODES:
        raise ValueError(f"a mask must hold one class per pixel, grey or with a palette; this one has mode {image.mode}.")
    with refusals("mask", max_pixels):
        stretched = STRETCHED.get(str(image.tile[0][3]), 1) if image.tile else 1
        image.load()
    return np.asarray(image).astype(np.int32) // stretched
