"""Items that lie end to end, whether or not they are of one length.

Letters in shapes: b items, n places of all items, m values of a place.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multimodal.batch import Items


def packed(items: Items) -> tuple[Tensor, Tensor]:
    """Return the values of all items end to end, and the length of each."""
    if items.lengths is not None:
        return items.values, items.lengths
    count, length = items.values.shape[:2]
    return items.values.flatten(0, 1), torch.full((count,), length, device=items.values.device)


def places(lengths: Int[Tensor, " b"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Return the item of each place of items that lie end to end, and its index in the item."""
    item = torch.repeat_interleave(lengths)
    return item, torch.arange(len(item), device=lengths.device) - (lengths.cumsum(0) - lengths)[item]


def means(values: Float[Tensor, "n m"], lengths: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Return the mean of all values of each item."""
    return values.new_zeros(len(lengths)).index_add_(0, places(lengths)[0], values.mean(1)) / lengths
