"""One layer of the encoder.

Each block has two halves around the mixing of attention, ``project`` and ``finish``, that treat tokens one by one: that is what lets tokens
of several experts mix in one attention (``multiway.py``).

Letters in shapes: n tokens, d width, h heads, e width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from multimodal.nn.attention import Attention
from multimodal.nn.first_weights import FirstWeights, initialize_linear
from multimodal.nn.norm import DropPath, LayerScale, scale
from multimodal.nn.packing import Packing
from multimodal.nn.plan import AttentionPlan

Kept = tuple[Tensor | None, Tensor | None]
"""What stochastic depth multiplies the two branches of each token by, ``(n, 1)``; None: 1."""


class BlockParts(NamedTuple):
    """What a block is built from.

    Args:
        dim: width.
        depth: layers of the whole encoder.
        attention: builds the attention from the width.
        mlp: builds the MLP from the width.
        norm: builds a norm from the width.
        layer_scale: first value of the layer scale of both branches; None: no layer scale.
        drop_path: stochastic-depth rate of both branches.
        first_weights: how linear layers start.
    """

    dim: int
    depth: int
    attention: Callable[[int], Attention]
    mlp: Callable[[int], nn.Module]
    norm: Callable[[int], nn.Module]
    layer_scale: float | None = None
    drop_path: float = 0.0
    first_weights: FirstWeights = "normal"


class Block(nn.Module):
    """Pre-norm transformer layer (ViT, https://arxiv.org/abs/2010.11929).

    Args:
        parts: what it is built from (filled in by the encoder).
    """

    def __init__(self, parts: BlockParts) -> None:
        super().__init__()
        dim, first_scale = parts.dim, parts.layer_scale
        self.norm1, self.norm2 = parts.norm(dim), parts.norm(dim)
        self.attn, self.mlp = parts.attention(dim), parts.mlp(dim)
        self.scale1, self.scale2 = (nn.Identity() if first_scale is None else LayerScale(dim, first_scale) for _ in range(2))
        self.drop_path, self.first_weights = DropPath(parts.drop_path), parts.first_weights

    def initialize(self, number: int) -> None:
        """Draw the first weights of layer ``number`` (from 1): the branches of deep layers start small (BEiT), but for Xavier's (MAE)."""
        self.apply(partial(initialize_linear, first_weights=self.first_weights))
        if self.first_weights == "xavier_uniform":
            return
        for weight in (self.attn.proj.weight, self.mlp.fc2.weight):
            weight.data.div_(math.sqrt(2 * number))

    def forward(self, x: Float[Tensor, "n d"], plan: AttentionPlan, wanted: Int[Tensor, " m"] | None = None) -> Float[Tensor, "_ d"]:
        """Transform tokens in packed order; all of them, or those at the positions ``wanted``, which see all."""
        mixed, kept = self.attn.mix(*self.project(x), plan), self.draw(plan.packing)
        if wanted is not None:
            x, mixed, kept = x[wanted], mixed[wanted], kept_of(kept, wanted)
        return self.finish(x, mixed, kept)

    def draw(self, packing: Packing) -> Kept:
        """Draw which sequences skip which branch."""
        return self.drop_path.draw(packing), self.drop_path.draw(packing)

    def project(self, x: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, ``(n, h, e)``."""
        return self.attn.project(self.norm1(x))

    def finish(self, x: Float[Tensor, "n d"], mixed: Float[Tensor, "n h e"], kept: Kept) -> Float[Tensor, "n d"]:
        """Add what attention has mixed, then the MLP."""
        x = x + scale(self.scale1(self.attn.output(mixed)), kept[0])
        return x + scale(self.scale2(self.mlp(self.norm2(x))), kept[1])


def kept_of(kept: Kept, own: Tensor) -> Kept:
    """Return which branches some tokens skip."""
    first, second = kept
    return None if first is None else first[own], None if second is None else second[own]


class ParallelBlock(Block):
    """Attention and MLP side by side on one norm (GPT-J; ViT-22B, https://arxiv.org/abs/2302.05442).

    Args:
        parts: what it is built from (filled in by the encoder).
    """

    def __init__(self, parts: BlockParts) -> None:
        super().__init__(parts)
        self.norm2 = nn.Identity()

    def finish(self, x: Tensor, mixed: Tensor, kept: Kept) -> Tensor:
        """Add both branches; a sequence skips both or none."""
        attended, transformed = self.scale1(self.attn.output(mixed)), self.scale2(self.mlp(self.norm1(x)))
        return x + scale(attended + transformed, kept[0])


class PostNormBlock(Block):
    """Post-norm transformer layer: the norm follows the sum (BERT, data2vec 2.0; https://arxiv.org/abs/1706.03762).

    Args:
        parts: what it is built from (filled in by the encoder).
        alpha: multiplies the input of each sum. 1 for BERT.
    """

    def __init__(self, parts: BlockParts, alpha: float = 1.0) -> None:
        super().__init__(parts)
        self.alpha = alpha

    def initialize(self, number: int) -> None:
        """Draw the first weights, the same way in all layers (BERT)."""
        self.apply(partial(initialize_linear, first_weights=self.first_weights))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, ``(n, h, e)``."""
        return self.attn.project(x)

    def finish(self, x: Tensor, mixed: Tensor, kept: Kept) -> Tensor:
        """Add what attention has mixed, normalise, add the MLP, normalise."""
        x = self.norm1(self.alpha * x + scale(self.scale1(self.attn.output(mixed)), kept[0]))
        return self.norm2(self.alpha * x + scale(self.scale2(self.mlp(x)), kept[1]))


class DeepNormBlock(PostNormBlock):
    """Post-norm layer that stays stable in deep encoders (DeepNorm, https://arxiv.org/abs/2203.00555; BEATs).

    The input of each sum is multiplied by ``alpha = (2 * depth) ** (1 / 4)``; the weights of values, outputs and MLP start smaller by
    ``(8 * depth) ** (-1 / 4)``.

    Args:
        parts: what it is built from (filled in by the encoder).

    Raises:
        ValueError: ``first_weights`` are asked for, which it has of its own.
    """

    def __init__(self, parts: BlockParts) -> None:
        if parts.first_weights != "normal":
            raise ValueError(f"first_weights {parts.first_weights!r} has no effect: a DeepNormBlock has its own. Leave it out.")
        super().__init__(parts, alpha=(2 * parts.depth) ** 0.25)
        self.beta = (8 * parts.depth) ** -0.25

    def initialize(self, number: int) -> None:
        """Draw the weights from Xavier's normal, those of values, outputs and MLP with gain beta."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight, gain=self.beta)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for part in self.attn.qkv.weight.data.chunk(3)[:2]:
            nn.init.xavier_normal_(part)
        nn.init.xavier_normal_(self.attn.qkv.weight.data.chunk(3)[2], gain=self.beta)
