"""Long items in windows that overlap, so that each token is told with something on both sides.

Letters in shapes: n tokens of all i items, w windows, m tokens of all windows end to end.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class SlidingWindows(NamedTuple):
    """The windows of all items, in their order.

    Args:
        source: ``(m,)`` int64, the place of each token among the tokens of all items.
        lengths: ``(w,)`` int64, the tokens of each window.
        item: ``(w,)`` int64, the item of each.
        own: ``(m,)`` bool, True where a token is told: once for each token of the items, in their order.
    """

    source: Tensor
    lengths: Tensor
    item: Tensor
    own: Tensor

    @classmethod
    def of(cls, lengths: Int[Tensor, " i"], size: int | None, stride: int | None = None) -> SlidingWindows:
        """Return windows of ``size`` tokens, a ``stride`` apart; the last of an item ends with it, and may overlap more.

        A token of two windows is told in the one in whose middle it is nearer: they change over in the middle of what they share.

        Args:
            lengths: tokens of each item.
            size: of a window, at least 1; None: an item is one.
            stride: from 1 to ``size``; None: half of it.
        """
        longest = int(lengths.max()) if len(lengths) else 0
        size = max(longest, 1) if size is None else size
        stride = stride or max(size // 2, 1)
        count = 1 + (lengths - size + stride - 1).clamp(min=0).div(stride, rounding_mode="floor")
        item = torch.repeat_interleave(count)
        number = torch.arange(len(item), device=lengths.device) - (count.cumsum(0) - count)[item]
        start = torch.minimum(number * stride, (lengths[item] - size).clamp(min=0))
        inside = torch.minimum(lengths[item], torch.full_like(item, size))
        window = torch.repeat_interleave(inside)
        place = torch.arange(len(window), device=lengths.device) - (inside.cumsum(0) - inside)[window] + start[window]
        following = torch.where(number + 1 < count[item], start.roll(-1), lengths[item] * 2)
        ends = torch.where(number + 1 < count[item], (following + start + size) // 2, lengths[item])
        begins = torch.where(number > 0, ends.roll(1), 0)
        own = (place >= begins[window]) & (place < ends[window])
        return cls((lengths.cumsum(0) - lengths)[item][window] + place, inside, item, own)

    def telling(self, wanted: Bool[Tensor, " n"]) -> SlidingWindows:
        """Return the windows in which some wanted token is told, with ``own`` at these tokens alone.

        Args:
            wanted: True at tokens of all items end to end.
        """
        window = torch.repeat_interleave(self.lengths, output_size=len(self.source))
        own = self.own & wanted[self.source]
        busy = torch.zeros_like(self.lengths, dtype=torch.bool).index_fill_(0, window[own], True)
        kept = busy[window]
        return SlidingWindows(self.source[kept], self.lengths[busy], self.item[busy], own[kept])
