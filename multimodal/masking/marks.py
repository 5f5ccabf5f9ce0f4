"""Tokens that are never hidden: marks, such as the start of a text."""

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from multimodal.protocols import Tokens

LAST = 1 - 2.0**-30
"""Above all noise, which has 24 bits, and below 1."""


def free_tokens(tokens: Tokens) -> Int[Tensor, " items"]:
    """Return how many tokens of each item may be hidden."""
    if tokens.marks is None:
        return tokens.lengths
    return tokens.lengths - torch.zeros_like(tokens.lengths).index_add_(0, tokens.item, tokens.marks.to(tokens.lengths.dtype))


def budget(tokens: Tokens, mask_ratio: float) -> Int[Tensor, " items"]:
    """Return how many tokens of each item are to be hidden: that share of those that may be, at least one where there is one."""
    free = free_tokens(tokens)
    return torch.minimum((free * mask_ratio).round().long().clamp(min=1), free)


def last_at_marks(tokens: Tokens, noise: Float[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """Return the noise, at marks above all other, so that they are drawn last."""
    return noise.double() if tokens.marks is None else noise.double().masked_fill(tokens.marks, LAST)
