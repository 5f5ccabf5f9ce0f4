"""Tokens of several experts mix in one attention (Multiway: VLMo, https://arxiv.org/abs/2111.02358; BEiT-3, https://arxiv.org/abs/2208.10442).

Letters in shapes: n tokens, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from multimodal.nn.block import Block
from multimodal.nn.plan import AttentionPlan


class MultiwayBlock(nn.Module):
    """A layer whose linear layers and norms exist once for each expert; attention runs over all tokens of a sequence together.

    Args:
        experts: one block for each expert; their ways of mixing must be the same, that of the first is used.
    """

    def __init__(self, experts: Sequence[Block]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)

    def initialize(self, number: int) -> None:
        """Draw the first weights of each expert's layer ``number``."""
        for expert in self.experts:
            expert.initialize(number)

    def forward(self, x: Float[Tensor, "n d"], plan: AttentionPlan) -> Float[Tensor, "n d"]:
        """Transform tokens in packed order, each by its expert."""
        if plan.experts is None:
            return self.experts[plan.only_expert](x, plan)
        routes = list(zip(self.experts, plan.experts.routes, strict=True))
        projected = zip(*(expert.project(x[own]) for expert, own in routes), strict=True)
        mixed = self.experts[0].attn.mix(*(plan.experts.merge(parts) for parts in projected), plan)
        packings = plan.experts.packings
        return plan.experts.merge([e.finish(x[own], mixed[own], packing) for (e, own), packing in zip(routes, packings, strict=True)])


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
