"""From the visible tokens of an item to its hidden ones, by attention within windows.

Letters in shapes: n tokens of all items, v visible ones, m hidden ones, i items, d width of the encoder, e width of the decoder, a axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from multimodal.nn.attention import Attention
from multimodal.nn.bias import RelativeBias2d
from multimodal.nn.decoder import Decoder, check_grid
from multimodal.nn.first_weights import FirstWeights
from multimodal.nn.packing import Packing
from multimodal.nn.plan import AttentionPlan, places_of
from multimodal.nn.positions import SinCosPosition2d


class WindowDecoder(Decoder):
    """A transformer that fills in hidden tokens, each of which sees its neighbours alone (AudioMAE, https://arxiv.org/abs/2207.06405).

    Tokens attend within windows of the grid (Swin, https://arxiv.org/abs/2103.14030), with a learned bias for each difference of places in
    each layer. In every second layer the windows lie elsewhere, by ``shift``, so that neighbours meet that a border has parted. The windows
    at the border of a grid are as large as what is left: nothing is padded, and items may have unequal numbers of rows.

    The class token is left out, as published.

    Args:
        dim: width of the encoder (filled in by the modality).
        width: of the decoder. AudioMAE: 512.
        depth: layers. AudioMAE: 16.
        num_heads: attention heads. AudioMAE: 16.
        window: rows and columns of a window. AudioMAE: 4 and 4.
        shift: rows and columns that the windows of the second, fourth ... layer lie after those of the others, from 0 to below ``window``.
            AudioMAE: 2 and 0.
        position: builds the positions that are added from the width; called with ``(n, 2)`` coordinates.
        attention: builds the attention of a layer from width and number of heads.
        first_weights: how linear layers start, as in ``Encoder``. AudioMAE: "xavier_uniform".

    Raises:
        ValueError: a window or shift that is not of two numbers, or outside its range; when called, tokens without a row and a column.
    """

    def __init__(
        self,
        dim: int,
        width: int = 512,
        depth: int = 16,
        num_heads: int = 16,
        window: Sequence[int] = (4, 4),
        shift: Sequence[int] = (2, 0),
        position: Callable[[int], nn.Module] = SinCosPosition2d,
        attention: Callable[[int, int], Attention] = Attention,
        first_weights: FirstWeights = "normal",
    ) -> None:
        super().__init__(dim, width, depth, num_heads, position, attention, first_weights)
        self.window, self.shift = tuple(window), tuple(shift)
        if len(self.shift) != 2 or not all(0 <= off < extent for off, extent in zip(self.shift, self.window, strict=False)):
            raise ValueError(f"shift must be of rows and columns, from 0 to below the window {self.window}, got {self.shift}.")
        for block in self.layers.layers():
            block.attn.set_position_bias(RelativeBias2d(num_heads, self.window))

    def check(self, coordinates: Shaped[Tensor, "n a"]) -> None:
        """Look whether tokens have a row and a column, and the positions fit; see ``TokenDecoder.check``."""
        check_grid(coordinates, self)
        super().check(coordinates)

    def forward(
        self,
        seen: Float[Tensor, "v d"],
        visible: Bool[Tensor, " n"],
        masked: Bool[Tensor, " n"],
        item: Int[Tensor, " n"],
        coordinates: Shaped[Tensor, "n a"],
        class_token: Float[Tensor, "i d"] | None = None,
    ) -> Float[Tensor, "m e"]:
        """Return the hidden tokens; see ``TokenDecoder.forward``. The class token has no effect."""
        x = self.filled(seen, visible, coordinates)
        plans = [self._plan(item, coordinates, shift) for shift in ((0, 0), self.shift)]
        for number, block in enumerate(self.layers.blocks):
            plan = plans[number % 2]
            x = plan.packing.unpack(block(plan.packing.pack(x), plan))
        assert self.layers.norm is not None
        return self.layers.norm(x[masked])

    def _plan(self, item: Int[Tensor, " n"], coordinates: Int[Tensor, "n 2"], shift: Sequence[int]) -> AttentionPlan:
        """Return the plan for layers whose windows lie so many rows and columns after the first of the grid."""
        window, after = (torch.tensor(pair, device=item.device) for pair in (self.window, tuple(shift)))
        number = (coordinates - after).div(window, rounding_mode="floor")  # n 2; -1 before the first whole window
        place = coordinates - (number * window + after).clamp(min=0)  # in the window; from 0 also where the grid cuts it off
        rows, columns = (number.amax(0) + 2).tolist()
        packing = Packing.from_sequence((item * rows + number[:, 0] + 1) * columns + number[:, 1] + 1)
        return AttentionPlan(packing, places=places_of(packing, place))
