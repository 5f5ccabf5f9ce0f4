"""Classes of pixels as colours, and as files.

Letters in shapes: c channels, h height, w width.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, Integer, UInt8
from PIL import Image
from torch import Tensor

from multimodal.atomic import atomic_file

COLOURS = 256
NO_CLASS_COLOUR = 255


def palette() -> UInt8[Tensor, "256 3"]:
    """Return the colours of PASCAL VOC: class 0 is black, neighbours differ much, 255 (no class) is nearly white."""
    classes, colours = torch.arange(COLOURS), torch.zeros(COLOURS, 3, dtype=torch.int64)
    for bit in range(8):  # the bits of a class go to red, green and blue in turn, the lowest to the highest of these
        for channel in range(3):
            colours[:, channel] |= (classes >> (3 * bit + channel) & 1) << (7 - bit)
    return colours.to(torch.uint8)


def coloured(classes: Integer[Tensor, "h w"]) -> UInt8[Tensor, "3 h w"]:
    """Return a picture of the classes; -1 has the colour of 255. Past 254 colours repeat."""
    index = torch.where(classes < 0, NO_CLASS_COLOUR, classes.long() % NO_CLASS_COLOUR)
    return palette().to(classes.device)[index].permute(2, 0, 1)


def enlarged(picture: UInt8[Tensor, "c h w"], min_size: int = 96) -> UInt8[Tensor, "3 _ _"]:
    """Return a picture of at least this height, in pixels, by a whole factor, in colours."""
    factor = max(1, -(-min_size // picture.shape[1]))
    return picture.expand(3, -1, -1).repeat_interleave(factor, 1).repeat_interleave(factor, 2)


def write_mask(classes: Int[Tensor, "h w"], num_classes: int, path: Path) -> None:
    """Write a PNG in which the value of a pixel is its class: with a palette up to 255 classes, else grey with 16 bits."""
    values = classes.cpu().numpy()
    if num_classes <= NO_CLASS_COLOUR:
        image = Image.fromarray(values.astype(np.uint8))
        image.putpalette(palette().flatten().tolist())
    else:
        image = Image.fromarray(values.astype(np.uint16))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        image.save(file, "PNG")
