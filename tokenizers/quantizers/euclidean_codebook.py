"""A codebook of vectors of any length.

Letters in shapes: n vectors, k codes, d width.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from multimodal.tokenizers.quantizers.across_ranks import joined, of_first, summed
from multimodal.tokenizers.quantizers.k_means import count_and_sum
from multimodal.tokenizers.quantizers.lattice import straight_through
from multimodal.tokenizers.quantizers.nearest import nearest_code
from multimodal.tokenizers.quantizers.quantizer import Quantized, Quantizer

KMEANS_ROUNDS = 10


class EuclideanCodebook(Quantizer):
    """Each code is the moving average of the vectors it stands for (VQ-VAE, https://arxiv.org/abs/1711.00937, appendix A.1).

    Unlike those of ``Codebook``, codes have a length: stages of a ``ResidualQuantizer`` need one. They begin as the means of k-means of the
    first training batch, and a code that is hardly used becomes a vector of the batch, as in SoundStream
    (https://arxiv.org/abs/2107.03312). Departures: hardly is a share of even use and not a number of vectors, so it means the same for any
    batch; vectors are drawn in proportion to their squared distance from their codes, so that codes go where they are missing, and not to
    what is frequent; and the averages are short at first, ``(1 + updates) / (10 + updates)`` instead of ``decay`` while that is less:
    an encoder that has just begun moves faster than long averages follow.

    Codes and statistics are buffers, changed in training mode only; on several processes all of them must quantize in the same steps, and
    their codes stay equal.

    Args:
        dim: width of a code.
        num_codes: size of the vocabulary.
        decay: of the moving averages, in [0, 1).
        commitment_weight: of the mean squared distance of vectors from their codes.
        revive_below: share of even use, in [0, 1), below which a code is replaced; 0: never.

    Raises:
        ValueError: a setting outside its range.
    """

    codes: Tensor
    sums: Tensor
    counts: Tensor
    updates: Tensor

    def __init__(
        self, dim: int, num_codes: int = 1024, decay: float = 0.99, commitment_weight: float = 0.25, revive_below: float = 0.03
    ) -> None:
        super().__init__(dim)
        if num_codes < 1 or commitment_weight < 0:
            raise ValueError(f"num_codes must be at least 1 and commitment_weight at least 0, got {num_codes} and {commitment_weight}.")
        if not (0 <= decay < 1 and 0 <= revive_below < 1):
            raise ValueError(f"decay and revive_below must be in [0, 1), got {decay} and {revive_below}.")
        self.decay, self.commitment_weight, self.revive_below = decay, commitment_weight, revive_below
        self.register_buffer("codes", torch.randn(num_codes, dim))
        self.register_buffer("sums", torch.zeros(num_codes, dim))
        self.register_buffer("counts", torch.zeros(num_codes))
        self.register_buffer("updates", torch.tensor(0))

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """One field, of as many ids as there are codes."""
        return (len(self.codes),)

    @torch.no_grad()
    def encode(self, vectors: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """Return the ids of the nearest codes, found in float32 under autocast too.

        Raises:
            ValueError: a vector is not finite.
        """
        return nearest_code(vectors.float(), self.codes)

    def lookup(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape d"]:
        """Return the codes of ids."""
        return self.codes[ids]

    def quantize(self, vectors: Float[Tensor, "n d"]) -> Quantized:
        """Quantize; in training mode the codes then move to their vectors. Gradients pass straight through."""
        vectors = vectors.float()
        if self.training and not int(self.updates):
            self._initialize(vectors.detach())
        ids = self.encode(vectors)
        codes = self.lookup(ids)
        commitment = F.mse_loss(vectors, codes)
        parts = {"commitment": commitment}
        if self.training:
            parts["revived_codes"] = self._follow(vectors.detach(), ids)
        return Quantized(straight_through(codes, vectors), ids, self.commitment_weight * commitment, parts)

    @torch.no_grad()
    def _initialize(self, vectors: Float[Tensor, "n d"]) -> None:
        """Begin with the means of clusters of the vectors of all processes; of fewer vectors than codes, some stand for several."""
        vectors = joined(vectors)
        order = torch.randperm(len(vectors), device=vectors.device)
        means = vectors[order[torch.arange(len(self.codes), device=vectors.device) % len(vectors)]]
        for _ in range(KMEANS_ROUNDS):
            counts, sums = count_and_sum(vectors, nearest_code(vectors, means), len(means))
            means = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), means)
        self._set(slice(None), of_first(means), len(vectors) / len(means))

    @torch.no_grad()
    def _follow(self, vectors: Float[Tensor, "n d"], ids: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        """Move codes towards the vectors of all processes; return how many were revived."""
        distance = (vectors - self.codes[ids]).square().sum(1)
        counts, sums = (summed(x.to(vectors.dtype)) for x in count_and_sum(vectors, ids, len(self.codes)))
        updates = int(self.updates)
        share = 1 - min(self.decay, (1 + updates) / (10 + updates))
        self.counts.lerp_(counts, share)
        self.sums.lerp_(sums, share)
        used = counts > 0  # the others keep their place: both averages shrink alike, to nothing in the end
        self.codes[used] = self.sums[used] / self.counts[used, None]
        self.updates += 1
        return self._revive(vectors, distance)

    def _revive(self, vectors: Float[Tensor, "n d"], distance: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Put unused codes on vectors of the first process that are far from theirs; they stay while the averages remember."""
        even = float(self.counts.mean())
        unused = (self.counts < self.revive_below * even).nonzero()[:, 0]
        if len(unused):
            drawn = torch.multinomial(distance + 1e-12, len(unused), replacement=len(unused) > len(vectors))
            self._set(unused, of_first(vectors[drawn]), math.e * self.revive_below * even)
        return distance.new_tensor(float(len(unused)))

    def _set(self, which: slice | Tensor, codes: Tensor, count: float) -> None:
        self.codes[which], self.sums[which], self.counts[which] = codes, codes * count, count
