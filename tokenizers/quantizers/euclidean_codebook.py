"""A codebook of vectors of any length.

Letters in shapes: n vectors, k codes, d width.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from multimodal.tokenizers.quantizers.across_ranks import of_first
from multimodal.tokenizers.quantizers.k_means import k_means
from multimodal.tokenizers.quantizers.moving_codebook import MovingCodebook


class EuclideanCodebook(MovingCodebook):
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

    sums: Tensor
    counts: Tensor
    updates: Tensor

    def __init__(
        self, dim: int, num_codes: int = 1024, decay: float = 0.99, commitment_weight: float = 0.25, revive_below: float = 0.03
    ) -> None:
        super().__init__(dim, num_codes, decay, commitment_weight, revive_below)
        self.register_buffer("sums", torch.zeros(num_codes, dim))
        self.register_buffer("counts", torch.zeros(num_codes))
        self.register_buffer("updates", torch.tensor(0))

    @property
    def started(self) -> bool:
        """Whether the codes are those of vectors, and not those that were drawn at first."""
        return int(self.updates) > 0

    @torch.no_grad()
    def _initialize(self, vectors: Float[Tensor, "n d"]) -> None:
        """Begin with the means of clusters; of fewer vectors than codes, some stand for several."""
        means, _ = k_means(vectors, self.num_codes)
        self._set(slice(None), of_first(means), len(vectors) / self.num_codes)

    def _move(self, counts: Float[Tensor, " k"], sums: Float[Tensor, "k d"]) -> None:
        """Move the moving averages of the numbers and the sums, and the codes to their quotients."""
        updates = int(self.updates)
        share = 1 - min(self.decay, (1 + updates) / (10 + updates))
        self.counts.lerp_(counts, share)
        self.sums.lerp_(sums, share)
        used = counts > 0  # the others keep their place: both averages shrink alike, to nothing in the end
        self.codes[used] = self.sums[used] / self.counts[used, None]
        self.updates += 1

    def _revive(self, vectors: Float[Tensor, "n d"], distance: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Put unused codes on far vectors; they stay while the averages remember."""
        even = float(self.counts.mean())
        unused = (self.counts < self.revive_below * even).nonzero()[:, 0]
        if len(unused):
            drawn = torch.multinomial(distance + 1e-12, len(unused), replacement=len(unused) > len(vectors))
            self._set(unused, of_first(vectors[drawn]), math.e * self.revive_below * even)
        return distance.new_tensor(float(len(unused)))

    def _set(self, which: slice | Tensor, codes: Tensor, count: float) -> None:
        self.codes[which], self.sums[which], self.counts[which] = codes, codes * count, count
