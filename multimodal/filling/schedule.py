"""How many of the hidden tokens stay hidden after each round.

Letters in shapes: i items.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor

Schedule = Literal["cosine", "linear"]
SCHEDULES = get_args(Schedule)


def still_hidden(total: Int[Tensor, " i"], step: int, steps: int, schedule: Schedule) -> Int[Tensor, " i"]:
    """Return how many of ``total`` hidden ones are still hidden after a round; after the last none is.

    Cosine: ``floor(total * cos(pi / 2 * step / steps))``, few are kept at first, many at last (MaskGIT, https://arxiv.org/abs/2202.04200).
    Linear: ``floor(total * (1 - step / steps))`` (Mask-Predict, https://arxiv.org/abs/1904.09324).

    Args:
        total: of each item, at least 0.
        step: number of the round, from 1 to ``steps``.
        steps: rounds.
        schedule: one of the two.
    """
    if step == steps:
        return torch.zeros_like(total)
    share = math.cos(math.pi / 2 * step / steps) if schedule == "cosine" else 1 - step / steps
    return (total.double() * share + 1e-9).floor().long()  # 0.1 * 10 is to be 1
