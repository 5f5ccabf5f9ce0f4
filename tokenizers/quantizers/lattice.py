"""Codes that lie on a lattice: there is no codebook, so no code can die.

Letters in shapes: n vectors, d width, c coordinates.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from multimodal.tokenizers.quantizers.quantizer import Quantizer

MOST_CODES = 2**30
"""Of a lattice; no head predicts as many ids."""


class LatticeQuantizer(Quantizer):
    """A few coordinates of a vector, each replaced by one of its levels; an id is the levels as the digits of a number.

    The first coordinate is the lowest digit. Coordinates come from the vector by a linear map, and the vector that an id stands for from
    its point by another; a vector that has as many values as there are coordinates is used as it is, both ways.

    Args:
        dim: width of the vectors.
        levels: how many each coordinate has.

    Raises:
        ValueError: there is no coordinate, or more than 2**30 codes.
    """

    basis: Tensor

    def __init__(self, dim: int, levels: Sequence[int]) -> None:
        super().__init__(dim)
        if not levels or math.prod(levels) > MOST_CODES:
            raise ValueError(f"levels must be of at least one coordinate and make at most 2**30 codes, got {tuple(levels)}.")
        self.levels = tuple(levels)
        direct = dim == len(levels)
        self.project_in = nn.Identity() if direct else nn.Linear(dim, len(levels))
        self.project_out = nn.Identity() if direct else nn.Linear(len(levels), dim)
        self.register_buffer("basis", torch.tensor([1, *levels[:-1]]).cumprod(0), persistent=False)

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """One field, of as many ids as the lattice has points."""
        return (math.prod(self.levels),)

    @abstractmethod
    def digits(self, coordinates: Float[Tensor, "n c"]) -> Int[Tensor, "n c"]:
        """Return the level of each coordinate, from 0."""

    @abstractmethod
    def points(self, digits: Int[Tensor, "*shape c"]) -> Float[Tensor, "*shape c"]:
        """Return the values of levels, in [-1, 1]."""

    @torch.no_grad()
    def encode(self, vectors: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """Return the ids, found in float32 under autocast too.

        Raises:
            ValueError: a vector is not finite.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            return self._ids(self.digits(self.coordinates(vectors)))

    def lookup(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape d"]:
        """Return the vectors of ids, float32."""
        digits = ids[..., None] // self.basis % self.basis.new_tensor(self.levels)
        with torch.autocast(ids.device.type, enabled=False):
            return self.project_out(self.points(digits))

    def coordinates(self, vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Return what is rounded; gradients pass.

        Raises:
            ValueError: a vector is not finite.
        """
        if not bool(torch.isfinite(vectors).all()):
            raise ValueError("vectors must be finite numbers; these are not.")
        return self.project_in(vectors.float())

    def _ids(self, digits: Int[Tensor, "n c"]) -> Int[Tensor, " n"]:
        return (digits * self.basis).sum(1)


def straight_through(values: Float[Tensor, "*shape"], source: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return ``values``, bit for bit; gradients pass to ``source`` (https://arxiv.org/abs/1308.3432)."""
    return values.detach() + (source - source.detach())
