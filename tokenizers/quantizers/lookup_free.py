"""Lookup-free quantization: the signs of a few numbers are the bits of an id.

Letters in shapes: n vectors, d width, c coordinates (bits), g groups.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from multimodal.tokenizers.quantizers.lattice import LatticeQuantizer, straight_through
from multimodal.tokenizers.quantizers.quantizer import Quantized


class LookupFreeQuantizer(LatticeQuantizer):
    """Each coordinate becomes -1 or 1; the first is the lowest bit (LFQ of MAGVIT-2, https://arxiv.org/abs/2310.05737).

    The loss makes each choice sure and all choices together even: the mean entropy of the choices of single vectors minus the entropy of
    their mean over the batch (of this process), where a vector chooses a code with a probability that falls exponentially with the squared
    distance. The first is exact for any number of bits. The second is exact within groups of bits, and added over groups: an upper bound,
    as in the paper, because the probabilities of all codes at once would not fit in memory.

    Args:
        dim: width of the vectors.
        num_bits: of an id, 1 to 30; the vocabulary has ``2 ** num_bits`` ids.
        entropy_weight: of the entropies, in nats.
        diversity: weight of the batch's entropy against the single one's.
        commitment_weight: of the mean squared distance of coordinates from the chosen values.
        temperature: squared distances are divided by it; smaller: only coordinates near 0 are moved.
        group_bits: bits of a group, 1 to 16; memory grows with ``n * 2 ** group_bits``.

    Raises:
        ValueError: a number of bits outside its range, a negative weight, or a temperature that is not positive.
    """

    def __init__(
        self,
        dim: int,
        num_bits: int = 13,
        entropy_weight: float = 0.1,
        diversity: float = 1.0,
        commitment_weight: float = 0.25,
        temperature: float = 0.01,
        group_bits: int = 8,
    ) -> None:
        if not (1 <= num_bits <= 30 and 1 <= group_bits <= 16):
            raise ValueError(f"num_bits must be 1 to 30 and group_bits 1 to 16, got {num_bits} and {group_bits}.")
        if min(entropy_weight, diversity, commitment_weight) < 0 or temperature <= 0:
            weights = f"{entropy_weight}, {diversity}, {commitment_weight} and {temperature}"
            raise ValueError(f"entropy_weight, diversity and commitment_weight must be at least 0, temperature positive; got {weights}.")
        super().__init__(dim, (2,) * num_bits)
        self.entropy_weight, self.diversity, self.commitment_weight = entropy_weight, diversity, commitment_weight
        self.temperature, self.num_groups = temperature, -(-num_bits // group_bits)

    def digits(self, coordinates: Float[Tensor, "n c"]) -> Int[Tensor, "n c"]:
        """Return 1 where a coordinate is positive, else 0."""
        return (coordinates > 0).long()

    def points(self, digits: Int[Tensor, "*shape c"]) -> Float[Tensor, "*shape c"]:
        """Return -1.0 for 0 and 1.0 for 1."""
        return digits * 2.0 - 1.0

    def quantize(self, vectors: Float[Tensor, "n d"]) -> Quantized:
        """Quantize; gradients pass straight through the signs."""
        with torch.autocast(vectors.device.type, enabled=False):
            coordinates = self.coordinates(vectors)
            digits = self.digits(coordinates)
            points = self.points(digits)
            single, batch = self.entropies(coordinates)
            commitment = F.mse_loss(coordinates, points)
            loss = self.entropy_weight * (single - self.diversity * batch) + self.commitment_weight * commitment
            quantized = self.project_out(straight_through(points, coordinates))
        return Quantized(quantized, self._ids(digits), loss, {"commitment": commitment, "single_entropy": single, "batch_entropy": batch})

    def entropies(self, coordinates: Float[Tensor, "n c"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the mean entropy of the choices of single vectors, and that of the mean choice, in nats."""
        logits = 4 * coordinates / self.temperature  # of a 1: the difference of the squared distances from -1 and 1
        ones = torch.sigmoid(logits)
        single = (F.softplus(logits) - logits * ones).sum(1).mean()
        return single, torch.stack([_entropy_of_mean(group) for group in torch.tensor_split(ones, self.num_groups, 1)]).sum()


def _entropy_of_mean(ones: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    """Return the entropy of the mean over vectors of the probabilities of all codes of a few independent bits."""
    joint = ones.new_ones(len(ones), 1)
    for one in ones.unbind(1):
        joint = (joint[:, :, None] * torch.stack([1 - one, one], 1)[:, None]).flatten(1)
    mean = joint.mean(0)
    return -torch.special.xlogy(mean, mean.clamp(min=torch.finfo(mean.dtype).tiny)).sum()
