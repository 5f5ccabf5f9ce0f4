"""Draw ids from logits.

Letters in shapes: m tokens, v ids of one field.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Drawn(NamedTuple):
    """Ids, and how sure the model is of each.

    Args:
        ids: ``(m,)`` int64.
        confidence: ``(m,)`` float32, the logarithm of the probability of each among the ids that were allowed, before ``temperature``,
            ``top_k`` and ``top_p``.
    """

    ids: Tensor
    confidence: Tensor


def draw(
    logits: Float[Tensor, "m v"],
    allowed: Bool[Tensor, "#m v"],
    noise: Float[Tensor, " m"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Drawn:
    """Draw an id for each token.

    Args:
        logits: of each id.
        allowed: True at ids that may be drawn: at least one for each token.
        noise: uniform in [0, 1): the id is a function of it and the logits.
        temperature: divides the logits; 0: the likeliest id, whatever the noise.
        top_k: only so many of the likeliest ids are drawn from; None: all.
        top_p: only the likeliest ids that together have this probability are drawn from (https://arxiv.org/abs/1904.09751); None: all.
    """
    known = logits.float().masked_fill(~allowed, -torch.inf).log_softmax(1)
    if temperature == 0:
        confidence, ids = known.max(1)
        return Drawn(ids, confidence)
    order = (known / temperature).softmax(1).double().sort(dim=1, descending=True, stable=True)
    chances = order.values
    if top_k is not None:
        chances[:, top_k:] = 0
    if top_p is not None:
        before = chances.cumsum(1) - chances
        chances = chances.masked_fill(before >= top_p * chances.sum(1, keepdim=True), 0)  # the first always stays
    reached = chances.cumsum(1)
    place = (reached <= noise.double()[:, None] * reached[:, -1:]).sum(1)  # an id without a chance is never the first above
    ids = order.indices.gather(1, place[:, None])
    return Drawn(ids[:, 0], known.gather(1, ids)[:, 0])
