"""Differences in time, beside the values.

Letters in shapes: b items, f frames of all items, m mel bins, k values of a frame with its differences.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multimodal.batch import Items
from multimodal.protocols import Preparation


class Deltas(Preparation):
    """Put the slopes of each bin in time after the bins of a frame, and the slopes of these after them (``add-deltas`` of Kaldi).

    A slope is that of the straight line that fits the ``2 * reach + 1`` frames around; beyond its ends, an item goes on as its first and
    last frames are.

    Args:
        order: how many times differences are taken, at least 1. Mockingjay: 2, which makes 240 values of 80 bins.
        reach: frames to each side, at least 1. torchaudio and s3prl: 2.

    Raises:
        ValueError: a number below 1.
    """

    def __init__(self, order: int = 2, reach: int = 2) -> None:
        super().__init__()
        if order < 1 or reach < 1:
            raise ValueError(f"order and reach must be at least 1, got {order} and {reach}.")
        self.order, self.reach = order, reach

    def extra_repr(self) -> str:
        """Name what decides how many values a frame has."""
        return f"order={self.order}, reach={self.reach}"

    def forward(self, items: Items, train: bool) -> Items:
        """Return the items with ``bins * (order + 1)`` values in each frame."""
        if items.lengths is not None:
            return replace(items, values=self._with_slopes(items.values, items.lengths))
        count, frames = items.values.shape[:2]
        lengths = torch.full((count,), frames, device=items.values.device)
        return replace(items, values=self._with_slopes(items.values.flatten(0, 1), lengths).unflatten(0, (count, frames)))

    def _with_slopes(self, values: Float[Tensor, "f m"], lengths: Int[Tensor, " b"]) -> Float[Tensor, "f k"]:
        last = (lengths.cumsum(0) - 1).repeat_interleave(lengths)
        first = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        place, steps = torch.arange(len(values), device=values.device), range(1, self.reach + 1)
        made = [values]
        for _ in range(self.order):
            x = made[-1]
            rise = [step * (x[(place + step).clamp(max=last)] - x[(place - step).clamp(min=first)]) for step in steps]
            made.append(torch.stack(rise).sum(0) / (2 * sum(step**2 for step in steps)))
        return torch.cat(made, 1)
