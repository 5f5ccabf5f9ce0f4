"""What codebooks have in common whose codes follow their vectors.

Letters in shapes: n vectors, k codes, d width.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from multimodal.tokenizers.quantizers.across_ranks import joined, summed
from multimodal.tokenizers.quantizers.k_means import count_and_sum
from multimodal.tokenizers.quantizers.lattice import straight_through
from multimodal.tokenizers.quantizers.nearest import nearest_code
from multimodal.tokenizers.quantizers.quantizer import Quantized, Quantizer


class MovingCodebook(Quantizer):
    """A vector becomes the nearest code; no optimizer moves the codes, they follow the vectors that chose them.

    They begin as clusters of the first training batch, and one that is hardly chosen is put elsewhere. Codes and statistics are float32
    buffers, which change in training mode only. On several processes all of them must quantize in the same steps, and their codes stay
    equal to the last bit.

    Args:
        dim: width of a code.
        num_codes: size of the vocabulary.
        decay: of the moving means, in [0, 1).
        commitment_weight: of the mean squared difference of vectors and their codes, at least 0.
        revive_below: share of even use, in [0, 1), below which a code is moved; 0: never.

    Raises:
        ValueError: a setting outside its range.
    """

    codes: Tensor

    def __init__(self, dim: int, num_codes: int, decay: float, commitment_weight: float, revive_below: float) -> None:
        super().__init__(dim)
        if num_codes < 1 or commitment_weight < 0:
            raise ValueError(f"num_codes must be at least 1 and commitment_weight at least 0, got {num_codes} and {commitment_weight}.")
        if not (0 <= decay < 1 and 0 <= revive_below < 1):
            raise ValueError(f"decay and revive_below must be in [0, 1), got {decay} and {revive_below}.")
        self.decay, self.commitment_weight, self.revive_below = decay, commitment_weight, revive_below
        self.register_buffer("codes", torch.randn(num_codes, dim))

    @property
    def num_codes(self) -> int:
        """How many codes there are."""
        return len(self.codes)

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """One field, of as many ids as there are codes."""
        return (self.num_codes,)

    @property
    @abstractmethod
    def started(self) -> bool:
        """Whether the codes are those of vectors, and not those that were drawn at first."""

    def compared(self, vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return what of the vectors is compared with the codes, float32; gradients pass."""
        return vectors.float()

    @torch.no_grad()
    def encode(self, vectors: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """Return the ids of the nearest codes, found in float32 under autocast too.

        Raises:
            ValueError: a vector is not finite.
        """
        return nearest_code(self.compared(vectors), self.codes)

    def lookup(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape d"]:
        """Return the codes of ids."""
        return self.codes[ids]

    def quantize(self, vectors: Float[Tensor, "n d"]) -> Quantized:
        """Quantize; in training mode the codes then move. Gradients pass straight through to what is compared.

        Raises:
            ValueError: a vector is not finite.
        """
        vectors = self.compared(vectors)
        if self.training and not self.started:
            self._initialize(joined(vectors.detach()))
        ids = nearest_code(vectors.detach(), self.codes)
        codes = self.lookup(ids)
        commitment = F.mse_loss(vectors, codes)
        parts = {"commitment": commitment}
        if self.training:
            parts["revived_codes"] = self._follow(vectors.detach(), ids)
        return Quantized(straight_through(codes, vectors), ids, self.commitment_weight * commitment, parts)

    @torch.no_grad()
    def _follow(self, vectors: Float[Tensor, "n d"], ids: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        """Move the codes towards the vectors of all processes; return how many were revived."""
        distance = (vectors - self.codes[ids]).square().sum(1)
        counts, sums = (summed(x.to(vectors.dtype)) for x in count_and_sum(vectors, ids, self.num_codes))
        self._move(counts, sums)
        return self._revive(vectors, distance)

    @abstractmethod
    def _initialize(self, vectors: Float[Tensor, "n d"]) -> None:
        """Begin with clusters of the vectors of all processes."""

    @abstractmethod
    def _move(self, counts: Float[Tensor, " k"], sums: Float[Tensor, "k d"]) -> None:
        """Move the codes that were chosen, by number and sum of the vectors of each; note their use."""

    @abstractmethod
    def _revive(self, vectors: Float[Tensor, "n d"], distance: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Put unused codes on vectors of the first process that are far from theirs, by squared distance; return how many."""
