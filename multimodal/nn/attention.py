"""Multi-head self-attention over packed sequences.

Letters in shapes: n tokens, d width, h heads, e width of a head.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.nn.packing import Packing


class Attention(nn.Module):
    """Multi-head self-attention (https://arxiv.org/abs/1706.03762).

    Args:
        dim: width of the tokens; a multiple of ``num_heads``.
        num_heads: number of heads.
        bias: which projections have a bias. BEiT has one for query and value only.
        dropout: share of attention weights dropped in training.
    """

    def __init__(self, dim: int, num_heads: int, bias: Literal["all", "query_value", "none"] = "all", dropout: float = 0.0) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim must be a multiple of num_heads, got dim {dim} and num_heads {num_heads}.")
        self.num_heads, self.dropout = num_heads, dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias == "all")
        self.query_value_bias = nn.Parameter(torch.zeros(2, dim)) if bias == "query_value" else None
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "n d"], packing: Packing, rotate: Callable[[Tensor], Tensor] | None = None) -> Float[Tensor, "n d"]:
        """Mix tokens within each sequence.

        Args:
            x: in packed order.
            packing: the attention plan.
            rotate: turns queries and keys ``(n, h, e)`` by their positions; None: positions are in the tokens.
        """
        query, key, value = self._project(x).unflatten(-1, (3, self.num_heads, -1)).unbind(1)  # n (3 h e) -> 3 x n h e
        if rotate is not None:
            query, key = rotate(query), rotate(key)
        mixed = packing.attend(query, key, value, self.dropout if self.training else 0.0)
        return self.proj(mixed.flatten(1))

    def _project(self, x: Tensor) -> Tensor:
        if self.query_value_bias is None:
            return self.qkv(x)
        query, value = self.query_value_bias
        return F.linear(x, self.qkv.weight, torch.cat([query, torch.zeros_like(query), value]))
