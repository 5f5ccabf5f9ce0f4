"""Hide stretches of a sequence."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F

from multimodal.masking.marks import LAST
from multimodal.masking.noise import uniform
from multimodal.protocols import Masking, Tokens


class SpanMasking(Masking):
    """Hide spans of neighbouring tokens (Mockingjay, https://arxiv.org/abs/1910.12638; TERA, https://arxiv.org/abs/2007.06028).

    Every item has ``round(mask_ratio * length / span)`` spans, at least one. No two begin at the same token, but they may overlap, so that
    fewer than ``mask_ratio`` may be hidden. An item shorter than a span is hidden as a whole. Marks (``Tokens.marks``) in a span stay.

    Args:
        mask_ratio: share of the tokens that the spans would hide if none overlapped, in (0, 1).
        span: tokens of a span, at least 1.

    Raises:
        ValueError: a setting outside its range.
    """

    def __init__(self, mask_ratio: float = 0.15, span: int = 7) -> None:
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio must be in (0, 1), got {mask_ratio}.")
        if span < 1:
            raise ValueError(f"span must be at least 1, got {span}.")
        self.mask_ratio, self.span = mask_ratio, span

    def __call__(self, tokens: Tokens, seed: Int[Tensor, " items"]) -> Bool[Tensor, " n"]:
        """Return True where a token is hidden."""
        item, position = tokens.item, tokens.position
        begun = F.pad(self._starts(tokens, seed).cumsum(0), (1, 0))  # spans that begin before each token of the batch
        place = torch.arange(len(item), device=seed.device)
        earliest = torch.maximum(place - self.span + 1, place - position)  # a span reaches no other item
        covered = begun[1:] > begun[earliest]
        return covered if tokens.marks is None else covered & ~tokens.marks

    def _starts(self, tokens: Tokens, seed: Int[Tensor, " items"]) -> Bool[Tensor, " n"]:
        """Return True where a span begins."""
        item, position = tokens.item, tokens.position
        places = (tokens.lengths - self.span + 1).clamp(min=1)  # where a whole span fits
        count = torch.minimum((tokens.lengths * self.mask_ratio / self.span).round().long().clamp(min=1), places)
        noise = uniform(seed[item], position).double().masked_fill(position >= places[item], LAST)
        order = (noise + item).argsort(stable=True)  # by item, then by noise; float64 keeps both parts
        first = position < count[item]  # the items lie end to end, so `position` is also the rank in the sorted order
        starts = torch.empty_like(first)
        starts[order] = first
        return starts
