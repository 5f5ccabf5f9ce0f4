"""Attention over packed sequences, by the fastest way there is for a plan.

Letters in shapes: n tokens, g sequences of a group, l their length, h heads, e width of a head.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from multimodal.nn.plan import AttentionPlan

OwnBias = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""Makes a layer's bias of a group: (query, key ``(g, h, l, e)``, places, the plan's bias or None) -> ``(p, h, l, l)``."""


def attend(
    query: Float[Tensor, "n h e"],
    key: Float[Tensor, "n h e"],
    value: Float[Tensor, "n h e"],
    plan: AttentionPlan,
    dropout: float = 0.0,
    own_bias: OwnBias | None = None,
) -> Float[Tensor, "n h e"]:
    """Scaled dot-product attention within each sequence; arguments and result in packed order.

    Args:
        query: of all tokens.
        key: of all tokens.
        value: of all tokens.
        plan: of the layer.
        dropout: share of attention weights dropped.
        own_bias: what the layer itself adds to the logits, the plan's bias included; None: the plan's bias alone.
    """
    if not plan.packing.groups:
        return value  # of no tokens: nothing to mix, and still connected to the parameters
    return attend_grouped(query, key, value, plan, dropout, own_bias)


def attend_grouped(
    query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, dropout: float = 0.0, own_bias: OwnBias | None = None
) -> Tensor:
    """One dense call for all sequences of equal length."""
    mixed = []
    for i, qkv in enumerate(zip(*(plan.packing.blocks(x) for x in (query, key, value)), strict=True)):
        q, k, v = (x.transpose(1, 2) for x in qkv)  # g l h e -> g h l e
        bias = plan.bias(i) if own_bias is None else own_bias(q, k, plan.place(i) if plan.places else None, plan.bias(i))
        mixed.append(attend_dense(q, k, v, bias, dropout).transpose(1, 2))
    return plan.packing.join(mixed)


def attend_dense(
    query: Float[Tensor, "g h l e"], key: Float[Tensor, "g h l e"], value: Float[Tensor, "g h l e"], bias: Tensor | None, dropout: float
) -> Float[Tensor, "g h l e"]:
    """Attention with a bias of the logits, ``(g or 1, h or 1, l, l)``."""
    mask = None if bias is None else bias.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
