"""From logits of where an answer starts and ends to the likeliest spans of tokens.

Letters in shapes: t tokens of one window.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Span(NamedTuple):
    """Tokens in a row.

    Args:
        score: the sum of the logits of its start and its end.
        first: index of its first token.
        last: index of its last token.
    """

    score: float
    first: int
    last: int


def best_spans(
    starts: Float[Tensor, " t"], ends: Float[Tensor, " t"], allowed: Bool[Tensor, " t"], count: int, max_tokens: int
) -> list[Span]:
    """Return the spans with the highest scores, the best first; of all that there are, not of the likeliest starts and ends alone.

    Args:
        starts: logit of each token to be the first.
        ends: logit of each token to be the last.
        allowed: True at the tokens that may be first or last.
        count: so many spans are returned, or as many as there are.
        max_tokens: tokens of a span, at most.
    """
    places = torch.arange(len(starts), device=starts.device)
    length = places[None, :] - places[:, None] + 1
    fits = allowed[:, None] & allowed[None, :] & (length >= 1) & (length <= max_tokens)
    scores = (starts[:, None] + ends[None, :]).masked_fill(~fits, -torch.inf).flatten()
    found = scores.topk(min(count, int(fits.sum())))
    return [
        Span(score, place // len(starts), place % len(starts))
        for score, place in zip(found.values.tolist(), found.indices.tolist(), strict=True)
    ]
