"""Attention over packed sequences, by the fastest way there is for a plan.

Letters in shapes: n tokens, g sequences of a group, l their length, h heads, e width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from multimodal.nn.plan import AttentionPlan
from multimodal.nn.softmax_attention import softmax_attention

OwnBias = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor]
"""Makes a layer's bias of a group: (query, key ``(g, h, l, e)``, places or None, the plan's bias or None) -> ``(p, h, l, l)``."""

Path = Literal["grouped", "varlen", "flex"]
"""A way through all sequences of a plan: one dense call for each length, or one call for all (``varlen_attn``, FlexAttention)."""

DenseKernel = Literal["fused", "softmax"]
"""A way through sequences of one length: PyTorch's ``scaled_dot_product_attention``, or ours."""

HALF = (torch.float16, torch.bfloat16)
MAX_SOFTMAX_LENGTH = 1024
"""Longer sequences keep their attention weights only where the gradient of a bias wants them: they grow with the square of the length."""


class Facts(NamedTuple):
    """What the choice of a path depends on.

    Args:
        device: the type of the tokens' device: "cpu", "cuda" ...
        dtype: of the queries.
        head_dim: width of a head.
        num_groups: different lengths.
        biased: the plan adds something to the logits, beside a window.
        own_bias: the layer adds something to the logits.
        window: tokens see those near them only.
        dropout: attention weights are dropped.
        static: the plan is to be traced, or has padding.
    """

    device: str
    dtype: torch.dtype
    head_dim: int
    num_groups: int
    biased: bool = False
    own_bias: bool = False
    window: bool = False
    dropout: bool = False
    static: bool = False


def choose_path(facts: Facts) -> Path:
    """Return the way through all sequences.

    On a processor, dense calls for each length are the fastest; on a GPU they are where there is but one. A GPU's flash kernel for
    sequences of any length knows no bias; FlexAttention does, but neither drops weights, and neither knows a layer's own bias.
    """
    if facts.device != "cuda" or facts.static or facts.own_bias or facts.dropout:
        return "grouped"
    if not facts.biased and facts.dtype in HALF and facts.head_dim % 8 == 0 and facts.head_dim <= 256:
        return "varlen"
    if facts.head_dim >= 16 and (facts.num_groups > 1 or facts.window):
        return "flex"
    return "grouped"


def choose_dense_kernel(device: str, dtype: torch.dtype, length: int, gradient: bool, bias_gradient: bool) -> DenseKernel:
    """Return the way through sequences of one length.

    The processor's fused kernel leaves no weights in memory, and is the fastest without a backward pass. With one it loses wherever a bias
    is learned, and in half precision.

    Args:
        device: the type of the tokens' device.
        dtype: of the queries.
        length: of the sequences.
        gradient: there will be a backward pass.
        bias_gradient: it goes to the bias too.
    """
    if device != "cpu" or not gradient:
        return "fused"
    return "softmax" if bias_gradient or (dtype in HALF and length <= MAX_SOFTMAX_LENGTH) else "fused"


def attend(
    query: Float[Tensor, "n h e"],
    key: Float[Tensor, "n h e"],
    value: Float[Tensor, "n h e"],
    plan: AttentionPlan,
    dropout: float = 0.0,
    own_bias: OwnBias | None = None,
) -> Float[Tensor, "n h e"]:
    """Scaled dot-product attention within each sequence; arguments and result in packed order.

    To ``torch.compile`` it is one opaque step, unless the plan is to be traced: the groups of a batch are numbers that a compiled graph
    would hold, and each batch would be compiled again.

    Args:
        query: of all tokens.
        key: of all tokens.
        value: of all tokens.
        plan: of the layer.
        dropout: share of attention weights dropped.
        own_bias: what the layer itself adds to the logits, the plan's bias included; None: the plan's bias alone.
    """
    if plan.packing.static:
        return attend_grouped(query, key, value, plan, dropout, own_bias)
    return _attend_packed(query, key, value, plan, dropout, own_bias)


@torch.compiler.disable
def _attend_packed(query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, dropout: float, own_bias: OwnBias | None) -> Tensor:
    if not plan.packing.groups:
        return value  # of no tokens: nothing to mix, and still connected to the parameters
    facts = Facts(
        query.device.type,
        query.dtype,
        query.shape[-1],
        len(plan.packing.groups),
        plan.biased,
        own_bias is not None,
        plan.window is not None,
        dropout > 0,
    )
    path = choose_path(facts)
    if path == "varlen":
        return attend_varlen(query, key, value, plan)
    if path == "flex":
        return attend_flex(query, key, value, plan)
    return attend_grouped(query, key, value, plan, dropout, own_bias)


def attend_varlen(query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan) -> Tensor:
    """One call of the flash kernel for all sequences; half precision on a GPU, without a bias."""
    from torch.nn.attention.varlen import varlen_attn

    ends, longest = plan.packing.ends, plan.packing.groups[-1][1]
    window = (-1, -1) if plan.window is None else (plan.window, plan.window)
    query, key, value = (x.contiguous() for x in (query, key, value))
    return cast(Tensor, varlen_attn(query, key, value, ends, ends, int(longest), int(longest), window_size=window))


def attend_flex(query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, compiled: bool = True) -> Tensor:
    """One call of FlexAttention for all sequences.

    Args:
        query: of all tokens.
        key: of all tokens.
        value: of all tokens.
        plan: of the layer.
        compiled: False computes all logits without a kernel of its own, for tests.
    """
    from torch.nn.attention import flex_attention

    call = _compiled_flex() if compiled else flex_attention.flex_attention
    query, key, value = (x.transpose(0, 1)[None] for x in (query, key, value))  # n h e -> 1 h n e
    return cast(Tensor, call(query, key, value, score_mod=plan.flex.score, block_mask=plan.flex.blocks))[0].transpose(0, 1)


@cache
def _compiled_flex() -> Callable[..., Any]:
    """Return FlexAttention compiled for any number of tokens."""
    from torch.nn.attention import flex_attention

    return torch.compile(flex_attention.flex_attention, dynamic=True)


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
    """Attention with a bias of the logits, ``(g or 1, h or 1, l or 1, l)``."""
    if not torch.compiler.is_compiling():
        bias_gradient = torch.is_grad_enabled() and bias is not None and bias.requires_grad
        gradient = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
        kernel = choose_dense_kernel(query.device.type, query.dtype, query.shape[2], gradient or bias_gradient, bias_gradient)
        if kernel == "softmax":
            return softmax_attention(query, key, value, bias, dropout)
    mask = None if bias is None else bias.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
