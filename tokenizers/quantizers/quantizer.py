"""What turns vectors into ids.

Letters in shapes: n vectors, d width, k fields.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn


class Quantized(NamedTuple):
    """Vectors after quantization.

    Args:
        vectors: ``(n, d)``, what the ids stand for; gradients pass straight through to what was quantized.
        ids: ``(n,)`` or ``(n, k)`` int64.
        loss: scalar, what training adds to its loss so that vectors and codes meet; 0 for quantizers that need none.
        parts: name -> scalar, what to log.
    """

    vectors: Tensor
    ids: Tensor
    loss: Tensor
    parts: Mapping[str, Tensor]


class Quantizer(nn.Module, ABC):
    """Vectors <-> ids. A vector has one id, or one for each of several fields (stages of a residual quantizer).

    Args:
        dim: width of the vectors.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}.")
        self.dim = dim

    @property
    @abstractmethod
    def vocab_sizes(self) -> tuple[int, ...]:
        """The number of ids of each field."""

    @abstractmethod
    def encode(self, vectors: Float[Tensor, "n d"]) -> Int[Tensor, "n ..."]:
        """Return the ids; it changes no statistics, and is float32 under autocast too."""

    @abstractmethod
    def lookup(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*out d"]:
        """Return the vectors of ids of any shape; of several fields, these are the last axis."""

    @abstractmethod
    def quantize(self, vectors: Float[Tensor, "n d"]) -> Quantized:
        """Quantize in training; codes and statistics change only in training mode."""
