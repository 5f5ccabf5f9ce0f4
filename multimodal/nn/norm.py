"""Norms, layer scale and stochastic depth.

Letters in shapes: n tokens, d width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from multimodal.nn.packing import Packing


class LayerNorm(nn.LayerNorm):
    """Layer norm (https://arxiv.org/abs/1607.06450).

    Args:
        dim: width.
        eps: added to the variance. BEiT, ViT, MAE: 1e-6; BEATs, BEiT-3, ModernBERT: 1e-5; BERT, FLAVA, AST: 1e-12.
        bias: whether it adds a learned vector. ModernBERT: no.
    """

    def __init__(self, dim: int, eps: float = 1e-6, bias: bool = True) -> None:
        super().__init__(dim, eps=eps, bias=bias)


class RmsNorm(nn.RMSNorm):
    """Divide by the root of the mean square (https://arxiv.org/abs/1910.07467).

    Args:
        dim: width.
        eps: added to the mean square.
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
        return scale(x, self.draw(packing))

    def draw(self, packing: Packing) -> Float[Tensor, "n 1"] | None:
        """Return for each token what its branch is multiplied by, the same in a whole sequence: 0, or what makes up for it; None: 1."""
        if not self.training or self.rate == 0:
            return None
        kept = (torch.rand(len(packing.lengths), device=packing.sequence.device) >= self.rate) / (1 - self.rate)
        return kept[packing.sequence, None]


def scale(x: Float[Tensor, "n d"], factor: Float[Tensor, "n 1"] | None) -> Float[Tensor, "n d"]:
    """Multiply each token by its factor; None: 1."""
    return x if factor is None else x * factor.to(x.dtype)
