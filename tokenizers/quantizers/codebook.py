"""A codebook of directions.

Letters in shapes: n vectors, k codes, d width.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from multimodal.tokenizers.quantizers.across_ranks import joined, of_first, summed
from multimodal.tokenizers.quantizers.k_means import count_and_sum, spherical_k_means
from multimodal.tokenizers.quantizers.lattice import straight_through
from multimodal.tokenizers.quantizers.nearest import nearest_code
from multimodal.tokenizers.quantizers.quantizer import Quantized, Quantizer

WINDOW = 16
"""Vectors for each code, over which its use is averaged: few enough that a dead code is soon seen, whatever the size of a batch."""
NEAR = 1e-6
"""Squared distance within which a code serves a vector so well that another one would be its copy."""


class Codebook(Quantizer):
    """Codes of unit length; a vector becomes the one that points most nearly the same way (VQ-KD, https://arxiv.org/abs/2208.06366).

    No optimizer moves the codes: they begin as k-means of the directions of the first training batch, and each follows the mean direction
    of its vectors. Codes and statistics are float32 buffers, which change in training mode only. On several processes all of them must
    quantize in the same steps, and their codes stay equal to the last bit.

    A departure: in the original a code that no vector chooses stays where it is for good, and with fewer vectors in the first batch than
    codes most of them are dead from the beginning. Here a code that is chosen by less than a share of what even use would be is put on a
    vector of the batch, drawn in proportion to its squared distance from its code: where the codes stand thinnest (k-means++,
    https://theory.stanford.edu/~sergei/papers/kMeansPP-soda.pdf).

    Args:
        dim: width of a code.
        num_codes: size of the vocabulary.
        decay: of the moving mean that a code is, in [0, 1).
        commitment_weight: of the mean squared difference of directions and their codes, at least 0.
        revive_below: share of even use, in [0, 1), below which a code is moved; 0: never, as in the original.

    Raises:
        ValueError: a setting outside its range.
    """

    codes: Tensor
    usage: Tensor
    initialized: Tensor

    def __init__(
        self, dim: int = 32, num_codes: int = 8192, decay: float = 0.99, commitment_weight: float = 1.0, revive_below: float = 0.2
    ) -> None:
        super().__init__(dim)
        if num_codes < 1 or commitment_weight < 0:
            raise ValueError(f"num_codes must be at least 1 and commitment_weight at least 0, got {num_codes} and {commitment_weight}.")
        if not (0 <= decay < 1 and 0 <= revive_below < 1):
            raise ValueError(f"decay and revive_below must be in [0, 1), got {decay} and {revive_below}.")
        self.decay, self.commitment_weight, self.revive_below = decay, commitment_weight, revive_below
        self.register_buffer("codes", F.normalize(torch.randn(num_codes, dim), dim=1))
        self.register_buffer("usage", torch.zeros(num_codes))
        self.register_buffer("initialized", torch.tensor(False))

    @property
    def num_codes(self) -> int:
        """How many codes there are."""
        return len(self.codes)

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """One field, of as many ids as there are codes."""
        return (self.num_codes,)

    @torch.no_grad()
    def encode(self, vectors: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """Return the ids of the codes nearest to the directions of the vectors, in float32 under autocast too.

        Raises:
            ValueError: a vector is not finite.
        """
        return nearest_code(F.normalize(vectors.float(), dim=1), self.codes)

    def lookup(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape d"]:
        """Return the codes of ids."""
        return self.codes[ids]

    def quantize(self, vectors: Float[Tensor, "n d"]) -> Quantized:
        """Quantize; in training mode the codes then move. Gradients pass straight through to the directions of the vectors.

        Raises:
            ValueError: a vector is not finite.
        """
        directions = F.normalize(vectors.float(), dim=1)
        if self.training and not bool(self.initialized):
            self._initialize(directions.detach())
        ids = nearest_code(directions.detach(), self.codes)
        codes = self.lookup(ids)
        commitment = F.mse_loss(directions, codes)
        parts = {"commitment": commitment}
        if self.training:
            parts["revived_codes"] = self._follow(directions.detach(), ids)
        return Quantized(straight_through(codes, directions), ids, self.commitment_weight * commitment, parts)

    @torch.no_grad()
    def _initialize(self, directions: Float[Tensor, "n d"]) -> None:
        """Begin with the clusters of the vectors of all processes; those without a vector count as unused."""
        directions = joined(directions)
        means, counts = spherical_k_means(directions, self.num_codes)
        even = len(directions) / self.num_codes
        self.codes.copy_(of_first(means))
        self.usage.copy_(of_first((counts > 0) * even))
        self.initialized.fill_(True)

    @torch.no_grad()
    def _follow(self, directions: Float[Tensor, "n d"], ids: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        """Move each code towards the mean direction of its vectors of all processes; return how many codes were revived."""
        distance = (directions - self.codes[ids]).square().sum(1)
        counts, sums = (summed(x.to(directions.dtype)) for x in count_and_sum(directions, ids, self.num_codes))
        moved = F.normalize(self.codes.lerp(F.normalize(sums, dim=1), 1 - self.decay), dim=1)
        self.codes.copy_(torch.where(counts[:, None] > 0, moved, self.codes))
        self.usage.lerp_(counts, 1 - math.exp(-float(counts.sum()) / (WINDOW * self.num_codes)))
        return self._revive(directions, distance)

    def _revive(self, directions: Float[Tensor, "n d"], distance: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Put unused codes on vectors of the first process that are far from theirs; they count as evenly used, so as to have time."""
        even = self.usage.mean()
        unused = (self.usage < self.revive_below * even).nonzero()[:, 0]
        if not len(unused):
            return distance.new_zeros(())
        found = of_first(_far(directions, distance, len(unused)))
        given = found.any(1)
        self.codes[unused[given]], self.usage[unused[given]] = found[given], even
        return given.sum().to(distance.dtype)


def _far(directions: Float[Tensor, "n d"], distance: Float[Tensor, " n"], count: int) -> Float[Tensor, "k d"]:
    """Return vectors drawn without replacement in proportion to their squared distance from a code; zeros where there are fewer."""
    weight = torch.where(distance > NEAR, distance, 0)
    count_far = min(count, int(weight.count_nonzero()))
    drawn = directions[torch.multinomial(weight, count_far)] if count_far else directions[:0]
    return F.pad(drawn, (0, 0, 0, count - count_far))
