"""One layer of the encoder, and its small parts.

Letters in shapes: n tokens, d width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multimodal.nn.attention import Attention
from multimodal.nn.packing import Packing


class Mlp(nn.Module):
    """Two linear layers with GELU between.

    Args:
        dim: width of input and output.
        ratio: width of the hidden layer, in widths of the input.
        dropout: share of outputs dropped in training.
    """

    def __init__(self, dim: int, ratio: float = 4.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, round(dim * ratio))
        self.fc2 = nn.Linear(round(dim * ratio), dim)
        self.act = nn.GELU()
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Transform each token by itself."""
        return self.drop(self.fc2(self.act(self.fc1(x))))


class LayerNorm(nn.LayerNorm):
    """Layer norm with the eps of BEiT and ViT.

    Args:
        dim: width.
        eps: added to the variance.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__(dim, eps=eps)


class LayerScale(nn.Module):
    """Multiply each channel by a learned number (CaiT, https://arxiv.org/abs/2103.17239).

    Args:
        dim: width.
        init: first value. BEiT base 0.1, BEiT large 1e-5.
    """

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Scale."""
        return x * self.gamma


class DropPath(nn.Module):
    """Drop a branch for whole sequences in training (stochastic depth, https://arxiv.org/abs/1603.09382).

    Args:
        rate: share of the sequences that skip the branch, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "n d"], packing: Packing) -> Float[Tensor, "n d"]:
        """Zero the branch of some sequences and scale up the others."""
        if not self.training or self.rate == 0:
            return x
        kept = (torch.rand(len(packing.lengths), device=x.device) >= self.rate) / (1 - self.rate)
        return x * kept[packing.sequence, None]


class Block(nn.Module):
    """Pre-norm transformer layer (ViT, https://arxiv.org/abs/2010.11929).

    Args:
        dim: width.
        attention: builds the attention from the width.
        mlp: builds the MLP from the width.
        norm: builds a norm from the width.
        layer_scale: first value of the layer scale of both branches; None: no layer scale.
        drop_path: stochastic-depth rate of both branches.
    """

    def __init__(
        self,
        dim: int,
        attention: Callable[[int], Attention],
        mlp: Callable[[int], nn.Module] = Mlp,
        norm: Callable[[int], nn.Module] = LayerNorm,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(dim), norm(dim)
        self.attn, self.mlp = attention(dim), mlp(dim)
        self.scale1, self.scale2 = (nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale) for _ in range(2))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "n d"], packing: Packing, rotate: Callable[[Tensor], Tensor] | None = None) -> Float[Tensor, "n d"]:
        """Transform tokens in packed order; see ``Attention.forward``."""
        x = x + self.drop_path(self.scale1(self.attn(self.norm1(x), packing, rotate)), packing)
        return x + self.drop_path(self.scale2(self.mlp(self.norm2(x))), packing)
