"""A codebook of directions.

Letters in shapes: n vectors, k codes, d width.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from multimodal.tokenizers.quantizers.across_ranks import of_first
from multimodal.tokenizers.quantizers.k_means import spherical_k_means
from multimodal.tokenizers.quantizers.moving_codebook import MovingCodebook

WINDOW = 16
"""Vectors for each code, over which its use is averaged: few enough that a dead code is soon seen, whatever the size of a batch."""
NEAR = 1e-6
"""Squared distance within which a code serves a vector so well that another one would be its copy."""


class Codebook(MovingCodebook):
    """Codes of unit length; a vector becomes the one that points most nearly the same way (VQ-KD, https://arxiv.org/abs/2208.06366).

    No optimizer moves the codes: they begin as k-means of the directions of the first training batch, and each follows the mean direction
    of its vectors. Codes and statistics are float32 buffers, which change in training mode only. On several processes all of them must
    quantize in the same steps, and their codes stay equal to the last bit. Gradients pass straight through to the directions.

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

    usage: Tensor
    initialized: Tensor

    def __init__(
        self, dim: int = 32, num_codes: int = 8192, decay: float = 0.99, commitment_weight: float = 1.0, revive_below: float = 0.2
    ) -> None:
        super().__init__(dim, num_codes, decay, commitment_weight, revive_below)
        self.codes.copy_(F.normalize(self.codes, dim=1))
        self.register_buffer("usage", torch.zeros(num_codes))
        self.register_buffer("initialized", torch.tensor(False))

    @property
    def started(self) -> bool:
        """Whether the codes are those of vectors, and not those that were drawn at first."""
        return bool(self.initialized)

    def compared(self, vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return the directions of the vectors, float32; gradients pass."""
        return F.normalize(vectors.float(), dim=1)

    @torch.no_grad()
    def _initialize(self, vectors: Float[Tensor, "n d"]) -> None:
        """Begin with the clusters of the directions; those without a vector count as unused."""
        means, counts = spherical_k_means(vectors, self.num_codes)
        even = len(vectors) / self.num_codes
        self.codes.copy_(of_first(means))
        self.usage.copy_(of_first((counts > 0) * even))
        self.initialized.fill_(True)

    def _move(self, counts: Float[Tensor, " k"], sums: Float[Tensor, "k d"]) -> None:
        """Move each code towards the mean direction of its vectors."""
        moved = F.normalize(self.codes.lerp(F.normalize(sums, dim=1), 1 - self.decay), dim=1)
        self.codes.copy_(torch.where(counts[:, None] > 0, moved, self.codes))
        self.usage.lerp_(counts, 1 - math.exp(-float(counts.sum()) / (WINDOW * self.num_codes)))

    def _revive(self, vectors: Float[Tensor, "n d"], distance: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Put unused codes on far directions, each on another; they count as evenly used, so as to have time."""
        even = self.usage.mean()
        unused = (self.usage < self.revive_below * even).nonzero()[:, 0]
        if not len(unused):
            return distance.new_zeros(())
        found = of_first(_far(vectors, distance, len(unused)))
        given = found.any(1)
        self.codes[unused[given]], self.usage[unused[given]] = found[given], even
        return given.sum().to(distance.dtype)


def _far(directions: Float[Tensor, "n d"], distance: Float[Tensor, " n"], count: int) -> Float[Tensor, "k d"]:
    """Return vectors drawn without replacement in proportion to their squared distance from a code; zeros where there are fewer."""
    weight = torch.where(distance > NEAR, distance, 0)
    count_far = min(count, int(weight.count_nonzero()))
    drawn = directions[torch.multinomial(weight, count_far)] if count_far else directions[:0]
    return F.pad(drawn, (0, 0, 0, count - count_far))
