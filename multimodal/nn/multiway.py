"""Tokens of several experts mix in one attention (Multiway: VLMo, https://arxiv.org/abs/2111.02358; BEiT-3, https://arxiv.org/abs/2208.10442).

Letters in shapes: n tokens, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from jaxtyping import Float, Int
from torch import Tensor, nn

from multimodal.nn.block import Block, kept_of
from multimodal.nn.plan import AttentionPlan


class MultiwayBlock(nn.Module):
    """A layer whose linear layers and norms exist once for each expert; attention runs over all tokens of a sequence together.

    What belongs to pairs of tokens, such as a bias of the logits, exists once and is the first expert's.

    Args:
        experts: one block for each expert, built alike.
    """

    def __init__(self, experts: Sequence[Block]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)
        for other in experts[1:]:
            other.attn.content_bias = None

    def initialize(self, number: int) -> None:
        """Draw the first weights of each expert's layer ``number``."""
        for expert in self.experts:
            expert.initialize(number)

    def forward(self, x: Float[Tensor, "n d"], plan: AttentionPlan, wanted: Int[Tensor, " m"] | None = None) -> Float[Tensor, "_ d"]:
        """Transform tokens in packed order, each by its expert; return all, or those at the positions ``wanted``."""
        x = self._transform(x, plan)
        return x if wanted is None else x[wanted]

    def _transform(self, x: Tensor, plan: AttentionPlan) -> Tensor:
        first = self.experts[0]
        kept = first.draw(plan.packing)  # of whole sequences: their tokens of all experts skip a branch together
        if plan.experts is None:
            expert = self.experts[plan.only_expert]
            return expert.finish(x, first.attn.mix(*expert.project(x), plan), kept)
        routes = list(zip(self.experts, plan.experts.routes, strict=True))
        projected = zip(*(expert.project(x[own]) for expert, own in routes), strict=True)
        mixed = first.attn.mix(*(plan.experts.merge(parts) for parts in projected), plan)
        return plan.experts.merge([expert.finish(x[own], mixed[own], kept_of(kept, own)) for expert, own in routes])


class MultiwayNorm(nn.Module):
    """A norm for each expert.

    Args:
        norms: one for each expert.
    """

    def __init__(self, norms: Sequence[nn.Module]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(norms)

    def forward(self, x: Float[Tensor, "n d"], plan: AttentionPlan) -> Float[Tensor, "n d"]:
        """Normalise tokens in packed order, each by its expert's norm."""
        if plan.experts is None:
            return self.experts[plan.only_expert](x)
        return plan.experts.merge([norm(x[own]) for norm, own in zip(self.experts, plan.experts.routes, strict=True)])


def build(make: Callable[[], Block], num_experts: int) -> Block | MultiwayBlock:
    """Return a block, or for several experts that many in one."""
    return make() if num_experts == 1 else MultiwayBlock([make() for _ in range(num_experts)])


def experts_of(layer: nn.Module) -> list[Block]:
    """Return the blocks of a layer: one for each expert."""
    return cast(list[Block], list(layer.experts) if isinstance(layer, MultiwayBlock) else [layer])


def normalized(norm: nn.Module, x: Float[Tensor, "n d"], plan: AttentionPlan) -> Float[Tensor, "n d"]:
    """Return tokens in packed order, normalised by the one norm of all experts or by one of each."""
    return norm(x, plan) if isinstance(norm, MultiwayNorm) else norm(x)
