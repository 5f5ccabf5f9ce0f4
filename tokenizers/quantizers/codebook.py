"""A codebook of directions.

Letters in shapes: n vectors, k codes, d width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.tokenizers.quantizers.nearest import nearest_code


class Codebook(nn.Module):
    """Codes of unit length; a vector becomes the one that points most nearly the same way (VQ-KD, https://arxiv.org/abs/2208.06366).

    Codes and statistics are buffers: no optimizer moves them, no copy in another precision replaces them, and looking codes up changes
    nothing.

    Args:
        num_codes: of the codebook.
        dim: width of a code.

    Raises:
        ValueError: a size below 1.
    """

    codes: Tensor
    usage: Tensor

    def __init__(self, num_codes: int = 8192, dim: int = 32) -> None:
        super().__init__()
        if num_codes < 1 or dim < 1:
            raise ValueError(f"num_codes and dim must be at least 1, got {num_codes} and {dim}.")
        self.register_buffer("codes", F.normalize(torch.randn(num_codes, dim), dim=1))
        self.register_buffer("usage", torch.zeros(num_codes))

    @property
    def num_codes(self) -> int:
        """How many codes there are."""
        return len(self.codes)

    def forward(self, vectors: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """Return the ids of the codes nearest to the directions of the vectors, in float32 under autocast too."""
        with torch.autocast(vectors.device.type, enabled=False):
            return nearest_code(F.normalize(vectors.detach().float(), dim=1), self.codes)

    def lookup(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape d"]:
        """Return the codes of ids."""
        return self.codes[ids]
