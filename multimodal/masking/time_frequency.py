"""Hide whole rows and whole columns.

Letters in shapes: b items, n tokens, e extent of the longest item along an axis.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.masking.noise import uniform
from multimodal.protocols import Masking, Tokens


class TimeFrequencyMasking(Masking):
    """Hide a share of the rows and a share of the columns of each item, as a whole (AudioMAE, https://arxiv.org/abs/2207.06405).

    What stays visible is where a visible row crosses a visible column. Rows are the first coordinate of a token and columns the second, so
    that items of unequal numbers of rows are masked together. Of r rows ``int(r * (1 - time_ratio))`` stay, at least one; columns alike.

    Args:
        time_ratio: share of the rows to hide, in [0, 1). AudioMAE's fine-tuning: 0.2.
        frequency_ratio: share of the columns to hide, in [0, 1). AudioMAE's fine-tuning: 0.2.

    Raises:
        ValueError: a share outside its range, or both 0; when called, tokens that have no rows and columns.
    """

    def __init__(self, time_ratio: float = 0.2, frequency_ratio: float = 0.2) -> None:
        if not (0 <= time_ratio < 1 and 0 <= frequency_ratio < 1 and time_ratio + frequency_ratio > 0):
            raise ValueError(f"time_ratio and frequency_ratio must be in [0, 1), and not both 0; got {time_ratio} and {frequency_ratio}.")
        self.time_ratio, self.frequency_ratio = time_ratio, frequency_ratio

    def __call__(self, tokens: Tokens, seed: Int[Tensor, " b"]) -> Bool[Tensor, " n"]:
        """Return True where a token is hidden."""
        places = tokens.coordinates
        if places.shape[1] != 2 or places.is_floating_point():
            raise ValueError(
                f"time and frequency masking needs tokens with a row and a column, got {places.shape[1]} of {places.dtype}: use SpanMasking"
                " for sequences."
            )
        hidden = torch.zeros(len(places), dtype=torch.bool, device=places.device)
        for axis, ratio in enumerate((self.time_ratio, self.frequency_ratio)):
            extent = torch.zeros_like(tokens.lengths).scatter_reduce(0, tokens.item, places[:, axis] + 1, "amax")
            hidden |= _hidden(seed, extent, ratio, axis)[tokens.item, places[:, axis]]
        return hidden


def _hidden(seed: Int[Tensor, " b"], extent: Int[Tensor, " b"], ratio: float, axis: int) -> Bool[Tensor, "b e"]:
    """Return which rows, or columns, of each item are hidden; those beyond its last one are."""
    place = torch.arange(int(extent.max()) if len(extent) else 0, device=seed.device).expand(len(seed), -1)
    kept = (extent.double() * (1 - ratio) + 1e-6).long().clamp(min=1)  # what is 0.8 * 10 in decimals is a little less in binary
    noise = uniform(seed[:, None].expand_as(place), place, stream=axis).masked_fill(place >= extent[:, None], 2.0)
    return noise.argsort(1).argsort(1) >= kept[:, None]
