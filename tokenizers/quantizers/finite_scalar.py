"""Finite scalar quantization: a few bounded numbers, each rounded.

Letters in shapes: n vectors, d width, c coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multimodal.tokenizers.quantizers.lattice import LatticeQuantizer, straight_through
from multimodal.tokenizers.quantizers.quantizer import Quantized

MARGIN = 1e-3
"""By which the outermost levels lie within the bound, as a share of it: rounding reaches them before the tangent is flat."""
FEWEST, MOST = 3, 1000


class FiniteScalarQuantizer(LatticeQuantizer):
    """Each coordinate is bounded by a hyperbolic tangent and rounded to a whole number (FSQ, https://arxiv.org/abs/2309.15505).

    There is no codebook and no loss beside the reconstruction: nothing to initialise, to revive or to weigh. An even number of levels
    lies half a step aside, so that 0 is among them. The paper's levels are (8, 6, 5) for about 2**8 codes, (8, 5, 5, 5) for 2**10,
    (7, 5, 5, 5, 5) for 2**12, (8, 8, 8, 6, 5) for 2**14, (8, 8, 8, 5, 5, 5) for 2**16.

    Args:
        dim: width of the vectors.
        levels: of each coordinate, 3 to 1000; their product is the size of the vocabulary. The paper finds at least 5 best.

    Raises:
        ValueError: a number of levels outside that range (for two, a ``LookupFreeQuantizer``), or over 2**30 codes.
    """

    reach: Tensor
    offset: Tensor
    shift: Tensor
    middle: Tensor

    def __init__(self, dim: int, levels: Sequence[int] = (8, 8, 8, 5, 5)) -> None:
        if not all(FEWEST <= level <= MOST for level in levels):
            raise ValueError(f"levels must be {FEWEST} to {MOST} (for two there is LookupFreeQuantizer), got {tuple(levels)}.")
        super().__init__(dim, levels)
        number = torch.tensor(self.levels)
        reach = (number - 1) * (1 + MARGIN) / 2
        offset = torch.where(number % 2 == 0, 0.5, 0.0)
        for name, value in (("reach", reach), ("offset", offset), ("shift", torch.atanh(offset / reach)), ("middle", number // 2)):
            self.register_buffer(name, value, persistent=False)

    def bounded(self, coordinates: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """Return the coordinates between the outermost levels, in steps from level ``levels // 2``; gradients pass."""
        return torch.tanh(coordinates + self.shift) * self.reach - self.offset

    def digits(self, coordinates: Float[Tensor, "n c"]) -> Int[Tensor, "n c"]:
        """Return the level of each coordinate, from 0."""
        return self.bounded(coordinates).round().long() + self.middle

    def points(self, digits: Int[Tensor, "*shape c"]) -> Float[Tensor, "*shape c"]:
        """Return the values of levels, in [-1, 1]."""
        return (digits - self.middle) / self.middle

    def quantize(self, vectors: Float[Tensor, "n d"]) -> Quantized:
        """Quantize; gradients pass through the rounding, and not past the bound. The loss is 0."""
        with torch.autocast(vectors.device.type, enabled=False):
            bounded = self.bounded(self.coordinates(vectors))
            digits = bounded.detach().round().long() + self.middle
            quantized = self.project_out(straight_through(self.points(digits), bounded / self.middle))
        return Quantized(quantized, self._ids(digits), quantized.new_zeros(()), {})
