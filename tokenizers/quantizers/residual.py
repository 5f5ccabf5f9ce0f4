"""Residual quantization: each stage quantizes what the stages before it left.

Letters in shapes: n vectors, d width, k stages, j of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.tokenizers.quantizers.euclidean_codebook import EuclideanCodebook
from multimodal.tokenizers.quantizers.quantizer import Quantized, Quantizer

DEFAULT_STAGE = partial(EuclideanCodebook, commitment_weight=0.0)
"""The commitment is the residual quantizer's, so that stages are not pulled twice."""


class ResidualQuantizer(Quantizer):
    """Several quantizers in a row; a vector is the sum of their vectors, and has an id of each (SoundStream, https://arxiv.org/abs/2107.03312).

    The commitment loss is the mean, over stages, of the mean squared distance of a vector from the sum of the stages so far. Gradients
    follow the chain of stages: through codebooks, which pass them straight, they reach the vectors once, not once for each stage.

    Args:
        dim: width of the vectors.
        num_stages: at least 2.
        stage: builds a stage of one field from the width: a codebook of lengths, not of directions (``EuclideanCodebook``, with
            ``commitment_weight: 0``), or a quantizer that learns its scale (``FiniteScalarQuantizer``, ``LookupFreeQuantizer``).
        commitment_weight: of the commitment loss; 0 for stages that have no codebook.

    Raises:
        ValueError: fewer than 2 stages, a negative weight, or a stage of several fields.
    """

    def __init__(
        self,
        dim: int,
        num_stages: int = 4,
        stage: Callable[[int], Quantizer] = DEFAULT_STAGE,
        commitment_weight: float = 0.25,
    ) -> None:
        super().__init__(dim)
        if num_stages < 2 or commitment_weight < 0:
            got = f"{num_stages} and {commitment_weight}"
            raise ValueError(f"num_stages must be at least 2 and commitment_weight at least 0, got {got}.")
        self.stages = nn.ModuleList([stage(dim) for _ in range(num_stages)])
        self.commitment_weight = commitment_weight
        if len(self.vocab_sizes) != num_stages:
            raise ValueError(f"a stage must have one field; {num_stages} of them have {len(self.vocab_sizes)}.")

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """One field for each stage."""
        return tuple(size for stage in self.stages for size in stage.vocab_sizes)

    @torch.no_grad()
    def encode(self, vectors: Float[Tensor, "n d"]) -> Int[Tensor, "n k"]:
        """Return the id of each stage, found in float32 under autocast too."""
        rest, ids = vectors.float(), []
        for stage in self.stages:
            ids.append(stage.encode(rest))
            rest = rest - stage.lookup(ids[-1])
        return torch.stack(ids, 1)

    def lookup(self, ids: Int[Tensor, "*shape j"]) -> Float[Tensor, "*shape d"]:
        """Return the sums of the vectors of ids; of the first ``j`` stages, where there are fewer ids.

        Raises:
            ValueError: no ids, or more than stages.
        """
        if not 1 <= ids.shape[-1] <= len(self.stages):
            raise ValueError(f"a vector has {len(self.stages)} ids, or the first of them; got {ids.shape[-1]}.")
        looked_up = (stage.lookup(own) for stage, own in zip(self.stages, ids.unbind(-1), strict=False))
        return reduce(torch.add, looked_up)  # one after the other, as in training: the sum is the same to the last bit

    def quantize(self, vectors: Float[Tensor, "n d"]) -> Quantized:
        """Quantize in training; each stage learns from what the stages before it left."""
        rest, total = vectors.float(), torch.zeros_like(vectors, dtype=torch.float32)
        outcomes, commitment = [], []
        for stage in self.stages:
            outcome = stage.quantize(rest)
            rest, total = rest - outcome.vectors, total + outcome.vectors
            commitment.append(F.mse_loss(vectors.float(), total.detach()))
            outcomes.append(outcome)
        pull = torch.stack(commitment).mean()
        loss = torch.stack([outcome.loss for outcome in outcomes]).mean() + self.commitment_weight * pull
        parts = {f"{name}_{i}": value for i, outcome in enumerate(outcomes) for name, value in outcome.parts.items()}
        ids = torch.stack([outcome.ids for outcome in outcomes], 1)
        return Quantized(total, ids, loss, {"commitment": pull, "rest": rest.detach().square().mean()} | parts)
