"""Losses that tell the pairs of a batch from its other combinations.

Letters in shapes: q items of one kind, c of the other.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


class PairLoss(nn.Module, ABC):
    """A loss of similarities, which it multiplies by a learned number.

    Args:
        temperature: what similarities are divided by at first, above 0.
        learned: whether that is learned.
        least: temperatures below it are set to it after a step.

    Raises:
        ValueError: a temperature that is not positive, or below ``least``.
    """

    both_ways: ClassVar[bool]
    """Whether the items of the second kind have losses of their own."""

    def __init__(self, temperature: float, learned: bool, least: float) -> None:
        super().__init__()
        if not 0 < least <= temperature:
            raise ValueError(f"temperature must be at least `least`, and both above 0, got {temperature} and {least}.")
        self.most = -math.log(least)
        self.log_scale = nn.Parameter(torch.tensor([-math.log(temperature)]), requires_grad=learned)  # sharded weights have an axis

    @property
    def temperature(self) -> float:
        """What similarities are divided by."""
        return math.exp(-self.log_scale.item())

    @abstractmethod
    def forward(self, similarities: Float[Tensor, "q c"], partner: Int[Tensor, " q"], equal: Bool[Tensor, "q c"]) -> Float[Tensor, " q"]:
        """Return the loss of each item.

        Args:
            similarities: of items of one kind to all of the other.
            partner: the number of the other item of each one's pair.
            equal: True at others that are as right as the partner, which count for nothing; what it says of partners is not read.
        """

    def after_step(self) -> None:
        """Keep the temperature in its bounds, once it has moved."""
        with torch.no_grad():
            self.log_scale.clamp_(max=self.most)


class InfoNCE(PairLoss):
    """Cross-entropy of the partner among all others, in both directions (CLIP, https://arxiv.org/abs/2103.00020).

    Args:
        temperature: what similarities are divided by at first. CLIP: 0.07.
        learned: whether that is learned.
        least: temperatures below it are set to it after a step. CLIP: 0.01.

    Raises:
        ValueError: a temperature that is not positive, or below ``least``.
    """

    both_ways = True

    def __init__(self, temperature: float = 0.07, learned: bool = True, least: float = 0.01) -> None:
        super().__init__(temperature, learned, least)

    def forward(self, similarities: Float[Tensor, "q c"], partner: Int[Tensor, " q"], equal: Bool[Tensor, "q c"]) -> Float[Tensor, " q"]:
        """Return the loss of each item."""
        others = equal.scatter(1, partner[:, None], False)
        logits = (similarities.float() * self.log_scale.float().exp()).masked_fill(others, -torch.inf)
        return F.cross_entropy(logits, partner, reduction="none")


class SigmoidLoss(PairLoss):
    """Whether two items are a pair, asked of each combination by itself (SigLIP, https://arxiv.org/abs/2303.15343).

    Args:
        temperature: what similarities are divided by at first. SigLIP: 0.1.
        bias: what is added to them then, at first. SigLIP: -10, as nearly all combinations are no pairs.
        learned: whether both are learned.
        least: temperatures below it are set to it after a step.

    Raises:
        ValueError: a temperature that is not positive, or below ``least``.
    """

    both_ways = False

    def __init__(self, temperature: float = 0.1, bias: float = -10.0, learned: bool = True, least: float = 0.001) -> None:
        super().__init__(temperature, learned, least)
        self.bias = nn.Parameter(torch.tensor([bias]), requires_grad=learned)

    def forward(self, similarities: Float[Tensor, "q c"], partner: Int[Tensor, " q"], equal: Bool[Tensor, "q c"]) -> Float[Tensor, " q"]:
        """Return the sum over the combinations of each item."""
        own = torch.zeros_like(equal).scatter(1, partner[:, None], True)
        logits = similarities.float() * self.log_scale.float().exp() + self.bias.float()
        losses = F.softplus(torch.where(own, -logits, logits))
        return losses.masked_fill(equal & ~own, 0.0).sum(1)
