"""Hide the same places at all times."""

import math

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.masking.random import RandomMasking
from multimodal.protocols import Masking, Tokens


class TubeMasking(Masking):
    """Hide a fixed share of the places of a grid, uniformly, each for all of its times (VideoMAE, https://arxiv.org/abs/2203.12602).

    The first axis of the grid is time. Every item hides ``int(mask_ratio * places)`` places, at least one: VideoMAE's 16 frames of 224
    pixels have 8 times of 196 places, of which 176 are hidden, so that 160 of 1568 tokens stay visible.

    Args:
        mask_ratio: share of the places to hide, in (0, 1).
    """

    def __init__(self, mask_ratio: float = 0.9) -> None:
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio must be in (0, 1), got {mask_ratio}.")
        self.mask_ratio = mask_ratio

    def __call__(self, tokens: Tokens, seed: Int[Tensor, " items"]) -> Bool[Tensor, " n"]:
        """Return True where a token is hidden.

        Raises:
            ValueError: the tokens are no grid of time and place.
        """
        if tokens.grid is None or len(tokens.grid) < 2:
            raise ValueError(f"tube masking needs a grid of times and places, got {tokens.grid}: use RandomMasking for sequences.")
        times, count = tokens.grid[0], len(tokens.lengths)
        places = math.prod(tokens.grid[1:])
        hidden = max(1, int(self.mask_ratio * places))
        lengths = torch.full_like(tokens.lengths, places)
        first = Tokens(lengths.new_empty(count * places), lengths, lengths.new_empty(count * places, 1))
        masked = RandomMasking(hidden / places)(first, seed)
        return masked.view(count, 1, places).expand(count, times, places).flatten()
