"""Show small squares of a grid of tokens.

Letters in shapes: b items, c squares, h rows, w columns.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.masking.grid import GridMasking
from multimodal.masking.noise import uniform


class InverseBlockMasking(GridMasking):
    """Hide all but small squares (data2vec 2.0, https://arxiv.org/abs/2212.07525; EAT, https://arxiv.org/abs/2401.03497).

    Squares are put at random places, cut off at the border of the grid; then single tokens are shown or hidden at random until every item
    shows exactly the share wanted, rounded down: 39 of 196 tokens.

    Args:
        mask_ratio: share of the grid to hide, in (0, 1).
        block: side of a square. data2vec 2.0: 3, EAT: 5.
        adjust: squares are drawn as if so much more of the grid were to be shown, since they overlap.
    """

    kind = "inverse block"

    def __init__(self, mask_ratio: float = 0.8, block: int = 3, adjust: float = 0.07) -> None:
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio must be in (0, 1), got {mask_ratio}.")
        if block < 1:
            raise ValueError(f"block must be at least 1, got {block}.")
        if adjust < 0:
            raise ValueError(f"adjust must be at least 0, got {adjust}.")
        self.mask_ratio, self.block, self.adjust = mask_ratio, block, adjust

    def draw(self, seed: Int[Tensor, " b"], height: int, width: int) -> Bool[Tensor, "b h w"]:
        """Return one mask for each seed."""
        size = height * width
        shown = max(1, int(size * (1 - self.mask_ratio) + 1e-6))  # what is 0.2 * 100 in decimals is a little less in binary
        centre = self._centres(seed, max(1, int(size * (1 - self.mask_ratio + self.adjust) / self.block**2)), size)
        rows, columns = (torch.arange(side, device=seed.device) for side in (height, width))
        top, left = (x - self.block // 2 for x in (centre // width, centre % width))  # b c
        high = (rows >= top[..., None]) & (rows < top[..., None] + self.block)  # b c h
        wide = (columns >= left[..., None]) & (columns < left[..., None] + self.block)
        visible = (high[..., :, None] & wide[..., None, :]).any(1).flatten(1)
        place = torch.arange(size, device=seed.device).expand_as(visible)
        noise = uniform(seed[:, None].expand_as(visible), place, stream=4) + ~visible  # tokens of squares first, in random order
        return (noise.argsort(1).argsort(1) >= shown).view(-1, height, width)

    def _centres(self, seed: Tensor, count: int, size: int) -> Int[Tensor, "b c"]:
        number = torch.arange(count, device=seed.device).expand(len(seed), count)
        return (uniform(seed[:, None].expand_as(number), number, stream=1) * size).long()
