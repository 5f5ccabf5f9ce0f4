"""Hide whole times."""

import math

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.masking.random import RandomMasking
from multimodal.protocols import Masking, Tokens


class FrameMasking(Masking):
    """Hide all places of some times of a grid, so that whole pictures are predicted from those before and after them.

    The first axis of the grid is time. The times are drawn uniformly, those between the first and the last alone.

    Args:
        num_times: times that are hidden in each item, at least 1.

    Raises:
        ValueError: fewer than 1 time; or, when called, tokens that are no grid of time and place, or have too few times.
    """

    def __init__(self, num_times: int = 1) -> None:
        if num_times < 1:
            raise ValueError(f"num_times must be at least 1, got {num_times}.")
        self.num_times = num_times

    def __call__(self, tokens: Tokens, seed: Int[Tensor, " items"]) -> Bool[Tensor, " n"]:
        """Return True where a token is hidden."""
        if tokens.grid is None or len(tokens.grid) < 2:
            raise ValueError(f"frame masking needs a grid of times and places, got {tokens.grid}: use SpanMasking for sequences.")
        times, count = tokens.grid[0], len(tokens.lengths)
        inner = times - 2
        if self.num_times > inner:
            raise ValueError(f"num_times {self.num_times} of {times} times cannot be hidden: the first and the last stay.")
        lengths = torch.full_like(tokens.lengths, inner)
        between = Tokens(lengths.new_empty(count * inner), lengths, lengths.new_empty(count * inner, 1))
        if self.num_times == inner:
            hidden = torch.ones(count, inner, dtype=torch.bool, device=lengths.device)
        else:
            hidden = RandomMasking(self.num_times / inner)(between, seed).view(count, inner)
        whole = torch.nn.functional.pad(hidden, (1, 1))
        return whole[:, :, None].expand(count, times, math.prod(tokens.grid[1:])).flatten()
