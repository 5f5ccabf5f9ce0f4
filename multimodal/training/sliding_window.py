"""Images that are larger than what a model was trained on, read through a window of that size.

Letters in shapes: b images, c classes, h height, w width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

GREY = 128  # around an image that is smaller than the window


class SlidingWindow:
    """Read an image window by window, and average the logits where windows overlap (mmseg's slide mode).

    The last window of a row or column is moved back so that it ends at the edge. An image smaller than the window is filled up with grey,
    below and right of it.

    Args:
        size: side of the window, in pixels: that of the crops trained on.
        stride: pixels from one window to the next, 1 to ``size``; None: two thirds of the window (BEiT: 341 of 512).

    Raises:
        ValueError: a setting outside its range.
    """

    def __init__(self, size: int, stride: int | None = None) -> None:
        stride = max(1, size * 2 // 3) if stride is None else stride
        if not 1 <= stride <= size:
            raise ValueError(f"stride must be from 1 to the window's size, {size}; got {stride}.")
        self.size, self.stride = size, stride

    def __call__(self, values: Tensor, logits_of: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the logits of whole images, ``(b, c, h, w)`` float32.

        Args:
            values: ``(b, channels, h, w)``.
            logits_of: images of the window's size -> their logits, on any grid.
        """
        height, width = values.shape[2:]
        missing = 0, max(self.size - width, 0), 0, max(self.size - height, 0)
        values = F.pad(values, missing, value=GREY) if any(missing) else values
        total, times = None, torch.zeros(values.shape[2:], device=values.device)
        for top in self.starts(height):
            for left in self.starts(width):
                own = (..., slice(top, top + self.size), slice(left, left + self.size))
                logits = at_size(logits_of(values[own]), (self.size, self.size))
                total = logits.new_zeros(*logits.shape[:2], *values.shape[2:]) if total is None else total
                total[own] += logits
                times[own] += 1
        assert total is not None
        return (total / times)[..., :height, :width]

    def starts(self, side: int) -> list[int]:
        """Return where windows start along a side of an image."""
        count = -(-max(side - self.size, 0) // self.stride) + 1
        return [min(number * self.stride, max(side - self.size, 0)) for number in range(count)]


def at_size(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return logits ``(b, c, rows, columns)`` at another size, bilinearly, in float32."""
    return F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
