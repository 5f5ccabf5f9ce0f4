"""Attention with the logits of a few sequences at a time, forward and backward: what a processor without a fused kernel for it is best at.

PyTorch's kernel for processors does not give the gradient of a bias, and slows down in half precision; what takes its place there writes
all logits to memory several times. Here the logits of a block of sequences stay in the cache until they are done with.

Letters in shapes: g sequences of a group, c sequences of a block, h heads, l length, e width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

BLOCK_LOGITS = 2**19
"""Logits of a block, at most, unless one sequence has more: 2 MiB in float32, what the cache of a core holds."""


def softmax_attention(
    query: Float[Tensor, "g h l e"],
    key: Float[Tensor, "g h l e"],
    value: Float[Tensor, "g h l e"],
    bias: Tensor | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "g h l e"]:
    """Attention with a bias of the logits that gets a gradient; the softmax is taken in float32 at least.

    The attention weights are kept for the backward pass: memory grows with the square of the length.

    Args:
        query: of all sequences.
        key: of all sequences.
        value: of all sequences.
        bias: added to the scaled logits; can be broadcast to ``(g, h, l, l)``.
        dropout: share of attention weights dropped.
    """
    return _SoftmaxAttention.apply(query, key, value, bias, dropout)


class _SoftmaxAttention(Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float) -> Tensor:
        count, heads, length, _ = query.shape
        mixed = _tokens_first(query)
        weights = query.new_empty(count, heads, length, length)
        kept = None
        if dropout:
            kept = torch.rand(weights.shape, device=query.device) >= dropout
        for own in _blocks(query):
            product = torch.bmm(*_joined(query[own], key[own].transpose(2, 3)))
            logits = product.view_as(weights[own]).to(_wide(query)).mul_(query.shape[-1] ** -0.5)
            if bias is not None:
                logits.add_(_part(bias, own))
            weights[own] = torch.softmax(logits, -1, out=logits)
            used = _dropped(weights[own], kept, own, dropout)
            mixed[own] = torch.bmm(*_joined(used, value[own])).view_as(mixed[own])
        ctx.save_for_backward(query, key, value, bias, weights, kept)
        ctx.dropout = dropout
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias, weights, kept = ctx.saved_tensors
        grads = [_tokens_first(query) for _ in range(3)]
        by_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[3] else None
        for own in _blocks(query):
            used = _dropped(weights[own], kept, own, ctx.dropout)
            grads[2][own] = torch.bmm(*_joined(used.transpose(2, 3), grad[own])).view_as(value[own])
            by_weights = torch.bmm(*_joined(grad[own], value[own].transpose(2, 3))).view_as(used)
            by_weights = _dropped(by_weights, kept, own, ctx.dropout)
            by_logits = torch._softmax_backward_data(by_weights, weights[own], -1, weights.dtype)
            if by_bias is not None:
                part = _part(by_bias, own)
                part += by_logits.sum_to_size(part.shape)
            by_logits *= query.shape[-1] ** -0.5
            grads[0][own] = torch.bmm(*_joined(by_logits, key[own])).view_as(query[own])
            grads[1][own] = torch.bmm(*_joined(by_logits.transpose(2, 3), query[own])).view_as(key[own])
        return *grads, by_bias, None


def _blocks(query: Tensor) -> Iterator[slice]:
    """Yield the sequences of each block."""
    count, heads, length, _ = query.shape
    size = max(BLOCK_LOGITS // max(heads * length * length, 1), 1)
    return (slice(start, start + size) for start in range(0, count, size))


def _joined(*operands: Tensor) -> tuple[Tensor, ...]:
    """Return ``(c, h, ...)`` as ``(c h, ...)``; a view where there is one sequence."""
    return tuple(operand.flatten(0, 1) for operand in operands)


def _tokens_first(like: Tensor) -> Tensor:
    """Return an empty tensor whose tokens lie in memory as those of a packing do, so that heads are joined without a copy."""
    count, heads, length, width = like.shape
    return like.new_empty(count, length, heads, width).transpose(1, 2)


def _part(bias: Tensor, own: slice) -> Tensor:
    return bias[own] if bias.shape[0] > 1 else bias


def _wide(like: Tensor) -> torch.dtype:
    return torch.promote_types(like.dtype, torch.float32)


def _dropped(weights: Tensor, kept: Tensor | None, own: slice, dropout: float) -> Tensor:
    return weights if kept is None else weights * kept[own] / (1 - dropout)
