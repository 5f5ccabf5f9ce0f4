"""Hide rectangles of a grid of tokens.

Letters in shapes: b items, h rows, w columns.
"""

import math

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.masking.grid import GridMasking
from multimodal.masking.noise import uniform

MAX_ATTEMPTS = 10


class BlockwiseMasking(GridMasking):
    """Hide rectangles until a share of the grid is hidden (BEiT, https://arxiv.org/abs/2106.08254, ``masking_generator.py`` of unilm).

    A rectangle has an area drawn between ``min_block`` and what is still to hide, and a log-uniform aspect; it is accepted when it
    hides at least one new token and not more than are still to hide. An item stops at the target, or when ten draws in a row were
    refused, so some items hide fewer than the target: counts are ragged, as in the original. All items draw in parallel.

    Args:
        mask_ratio: share of the grid to hide at most, in (0, 1). BEiT hides 75 of 196 patches.
        min_block: smallest area drawn for a rectangle, in tokens (when more than that is left to hide).
        min_aspect: smallest height / width; the largest is its inverse.
        exact: fill items that hide fewer than the target up with single tokens, drawn uniformly (BEiT v2, https://arxiv.org/abs/2208.06366).
    """

    kind = "blockwise"

    def __init__(self, mask_ratio: float = 75 / 196, min_block: int = 16, min_aspect: float = 0.3, exact: bool = False) -> None:
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio must be in (0, 1), got {mask_ratio}.")
        if not 0 < min_aspect <= 1:
            raise ValueError(f"min_aspect must be in (0, 1], got {min_aspect}.")
        if min_block < 1:
            raise ValueError(f"min_block must be at least 1, got {min_block}.")
        self.mask_ratio, self.min_block, self.min_aspect, self.exact = mask_ratio, min_block, min_aspect, exact

    def draw(self, seed: Int[Tensor, " b"], height: int, width: int) -> Bool[Tensor, "b h w"]:
        """Return one mask for each seed."""
        target = round(self.mask_ratio * height * width)
        rows = torch.arange(height, device=seed.device)[:, None]
        columns = torch.arange(width, device=seed.device)
        masked = torch.zeros(len(seed), height, width, dtype=torch.bool, device=seed.device)
        refused = torch.zeros_like(seed)
        step = 0
        while True:
            remaining = target - masked.sum((1, 2))
            active = (remaining > 0) & (refused < MAX_ATTEMPTS)
            if not active.any():
                return self._fill(masked, remaining, seed) if self.exact else masked
            top, left, high, wide = self._rectangles(seed, step, remaining, height, width)
            box = ((rows >= top) & (rows < top + high)) & ((columns >= left) & (columns < left + wide))
            new = (box & ~masked).sum((1, 2))
            fits = ((high < height) & (wide < width)).flatten()
            accepted = active & fits & (new > 0) & (new <= remaining)
            masked |= box & accepted[:, None, None]
            refused = torch.where(accepted, 0, refused + active)
            step += 1

    def _fill(self, masked: Tensor, missing: Tensor, seed: Tensor) -> Tensor:
        """Hide ``missing`` (``(b,)``) more tokens of each item."""
        flat = masked.flatten(1)
        place = torch.arange(flat.shape[1], device=seed.device).expand_as(flat)
        noise = uniform(seed[:, None].expand_as(flat), place, stream=4).masked_fill(flat, 2.0)  # what is hidden comes last
        return (flat | (noise.argsort(1).argsort(1) < missing[:, None])).view_as(masked)

    def _rectangles(self, seed: Tensor, step: int, remaining: Tensor, height: int, width: int) -> list[Tensor]:
        """Return top, left, height and width, each ``(b, 1, 1)``, of one candidate for each item."""
        counter = torch.arange(4, device=seed.device) + 4 * step
        area, aspect, top, left = uniform(seed[:, None].expand(-1, 4), counter.expand(len(seed), 4), stream=1).unbind(1)
        area = self.min_block + area * (remaining - self.min_block)  # the ends swap when less than a block is left, as in the original
        aspect = torch.exp((2 * aspect - 1) * -math.log(self.min_aspect))
        high = (area * aspect).sqrt().round().long()
        wide = (area / aspect).sqrt().round().long()
        top = (top * (height - high + 1).clamp(min=1)).long()
        left = (left * (width - wide + 1).clamp(min=1)).long()
        return [value[:, None, None] for value in (top, left, high, wide)]
