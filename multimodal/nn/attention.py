"""Multi-head self-attention over packed sequences.

Letters in shapes: n tokens, d width, h heads, e width of a head, g sequences of a group, l their length, p places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.nn.kernels import attend
from multimodal.nn.plan import AttentionPlan

ProjectionBias = Literal["all", "query_value", "none"]


class Attention(nn.Module):
    """Multi-head self-attention (https://arxiv.org/abs/1706.03762), in three steps: ``project``, ``mix``, ``output``.

    Args:
        dim: width of the tokens; a multiple of ``num_heads``.
        num_heads: number of heads.
        bias: which of the projections to queries, keys and values have a bias. BEiT and VideoMAE have it for query and value only.
        output_bias: whether the projection of the mixed heads has one. ModernBERT: no.
        qk_norm: builds a norm of queries and keys from the width of a head (ViT-22B, https://arxiv.org/abs/2302.05442); None: no norm.
        inner_norm: builds a norm of the mixed heads from the width (sub-LN, BEiT-3, https://arxiv.org/abs/2210.06423); None: no norm.
        content_bias: builds from number and width of heads what is added to the logits depending on queries and keys; None: nothing.
        dropout: share of attention weights dropped in training, in [0, 1).

    Raises:
        ValueError: a width that is no multiple of the heads, an unknown kind of bias, or a dropout out of range.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        bias: ProjectionBias = "all",
        output_bias: bool = True,
        qk_norm: Callable[[int], nn.Module] | None = None,
        inner_norm: Callable[[int], nn.Module] | None = None,
        content_bias: Callable[[int, int], nn.Module] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim must be a multiple of num_heads, got dim {dim} and num_heads {num_heads}.")
        if bias not in get_args(ProjectionBias):
            raise ValueError(f"bias must be one of {', '.join(get_args(ProjectionBias))}, got {bias!r}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}.")
        self.num_heads, self.dropout = num_heads, dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias == "all")
        self.query_value_bias = nn.Parameter(torch.zeros(2, dim)) if bias == "query_value" else None
        self.query_norm = qk_norm(dim // num_heads) if qk_norm else nn.Identity()
        self.key_norm = qk_norm(dim // num_heads) if qk_norm else nn.Identity()
        self.inner_norm = inner_norm(dim) if inner_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim, bias=output_bias)
        self.content_bias = content_bias(num_heads, dim // num_heads) if content_bias else None
        self.position_bias: nn.Module | None = None

    def set_position_bias(self, bias: nn.Module) -> None:
        """Give the layer a position bias of its own: a module that makes ``(p, h, l, l)`` of places."""
        self.position_bias = bias

    def forward(self, x: Float[Tensor, "n d"], plan: AttentionPlan) -> Float[Tensor, "n d"]:
        """Mix tokens within each sequence; tokens in packed order."""
        return self.output(self.mix(*self.project(x), plan))

    def project(self, x: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, ``(n, h, e)``."""
        query, key, value = self._qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(1)  # n (3 h e) -> 3 x n h e
        return self.query_norm(query), self.key_norm(key), value

    def mix(self, query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan) -> Float[Tensor, "n h e"]:
        """Return for each token and head the attended mean of the values of its sequence."""
        if plan.rotate is not None:
            query, key = plan.rotate(query), plan.rotate(key)
        own = None if self.content_bias is None and self.position_bias is None else self._own_bias
        return attend(query, key, value, plan, self.dropout if self.training else 0.0, own)

    def output(self, mixed: Float[Tensor, "n h e"]) -> Float[Tensor, "n d"]:
        """Join the heads."""
        return self.proj(self.inner_norm(mixed.flatten(1)))

    def _own_bias(self, query: Tensor, key: Tensor, places: Tensor | None, bias: Tensor | None) -> Tensor:
        if self.position_bias is not None:
            own = self.position_bias(places)
            bias = own if bias is None else own + bias
        if self.content_bias is not None:
            bias = self.content_bias(query, key, places, bias)
        assert bias is not None  # it is called only where there is one of both
        return bias

    def _qkv(self, x: Tensor) -> Tensor:
        if self.query_value_bias is None:
            return self.qkv(x)
        query, value = self.query_value_bias
        return F.linear(x, self.qkv.weight, torch.cat([query, torch.zeros_like(query), value]))
