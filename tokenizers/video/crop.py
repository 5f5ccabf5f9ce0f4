"""Which part of its pictures a clip shows, in training.

Letters in shapes: f frames, c channels, h height, w width, s side.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F

TRIES = 10
PLACES = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3))
"""Quarters of the free play downwards and to the right: corners, centre, middles of the sides, and half-way from the centre to a corner."""


class Window(NamedTuple):
    """A rectangle of pixels: its corner, and its sides."""

    top: int
    left: int
    height: int
    width: int


class Crop(ABC):
    """Draws the part of the pictures that a clip shows; it is the same in all of them."""

    @abstractmethod
    def __call__(self, height: int, width: int, generator: torch.Generator) -> Window:
        """Return a part of pictures of these sides."""


class RandomSquare(Crop):
    """The largest square, at any place."""

    def __call__(self, height: int, width: int, generator: torch.Generator) -> Window:
        """Return a square."""
        down, right = torch.rand(2, generator=generator).tolist()
        return square_at(height, width, down, right)


class RandomResizedCrop(Crop):
    """A rectangle of any area and shape within bounds, at any place; fine-tuning of VideoMAE (https://arxiv.org/abs/2203.12602).

    Where ten draws do not fit into the pictures, it is the largest in the middle whose shape is within bounds.

    Args:
        scale: range of its share of the area, in (0, 1].
        ratio: range of width / height, before it is resized to a square.

    Raises:
        ValueError: a range that does not ascend, or leaves its bounds.
    """

    def __init__(self, scale: tuple[float, float] = (0.5, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> None:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale must be an ascending range in (0, 1], got {scale}.")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"ratio must be an ascending range above 0, got {ratio}.")
        self.scale, self.ratio = scale, ratio

    def __call__(self, height: int, width: int, generator: torch.Generator) -> Window:
        """Return a rectangle."""
        low, high = (math.log(bound) for bound in self.ratio)
        for area, shape, down, right in torch.rand(TRIES, 4, generator=generator).tolist():
            pixels = height * width * (self.scale[0] + area * (self.scale[1] - self.scale[0]))
            ratio = math.exp(low + shape * (high - low))
            rows, columns = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
            if 0 < rows <= height and 0 < columns <= width:
                return Window(int(down * (height - rows + 1)), int(right * (width - columns + 1)), rows, columns)
        rows = max(1, min(height, round(width / self.ratio[0])))
        columns = max(1, min(width, round(height * self.ratio[1])))
        return Window((height - rows) // 2, (width - columns) // 2, rows, columns)


class CornerCrop(Crop):
    """A rectangle at one of thirteen places, whose sides are shares of the shorter side (pretraining of VideoMAE).

    Both sides are drawn from ``scales``, at most one place apart in the list; so the clip is stretched a little at times. The places are
    the corners, the centre, the middles of the sides, and those between the centre and the corners (TSN, https://arxiv.org/abs/1608.00859).

    Args:
        scales: shares of the shorter side, descending, in (0, 1].

    Raises:
        ValueError: no scales, or one outside (0, 1].
    """

    def __init__(self, scales: Sequence[float] = (1.0, 0.875, 0.75, 0.66)) -> None:
        if not scales or not all(0 < scale <= 1 for scale in scales):
            raise ValueError(f"scales must be shares in (0, 1], at least one, got {tuple(scales)}.")
        self.scales = tuple(scales)
        places = range(len(self.scales))
        self.pairs = [(self.scales[i], self.scales[j]) for i in places for j in places if abs(i - j) <= 1]

    def __call__(self, height: int, width: int, generator: torch.Generator) -> Window:
        """Return a rectangle."""
        short = min(height, width)
        pair, place = (int(torch.randint(count, (), generator=generator)) for count in (len(self.pairs), len(PLACES)))
        rows, columns = (max(1, int(short * share)) for share in self.pairs[pair])
        down, right = PLACES[place]
        return Window(down * ((height - rows) // 4), right * ((width - columns) // 4), rows, columns)


def square_at(height: int, width: int, down: float, right: float) -> Window:
    """Return the largest square, at these shares of the free play."""
    side = min(height, width)
    return Window(round(down * (height - side)), round(right * (width - side)), side, side)


def cut(pictures: UInt8[Tensor, "f c h w"], window: Window, size: int) -> UInt8[Tensor, "f c s s"]:
    """Return a part of the pictures, resized to a square."""
    top, left, height, width = window
    part = pictures[..., top : top + height, left : left + width]
    return F.interpolate(part, size=(size, size), mode="bicubic", antialias=True)
