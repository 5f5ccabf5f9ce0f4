"""Layers beside those of an encoder.

Letters in shapes: n tokens, s sequences, d width, a axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.nn.encoder import Encoder


class Branch(nn.Module):
    """New layers that run on class tokens and tokens of some layer, with the positions and the final norm of an encoder (BEiT v2).

    Args:
        encoder: whose positions and norm are used; it has one expert. It is given again with each call, and is no part of the branch.
        layers: the number, from 0, of the layer that each stands in for: its stochastic depth and first weights are that one's.

    Raises:
        ValueError: no layers, one that the encoder does not have, or an encoder with experts.
    """

    def __init__(self, encoder: Encoder, layers: Sequence[int]) -> None:
        super().__init__()
        if not layers or min(layers) < 0 or max(layers) >= encoder.depth:
            raise ValueError(f"the layers of a branch stand in for some of 0 to {encoder.depth - 1}, got {list(layers)}.")
        if encoder.num_experts > 1:
            raise ValueError(f"a branch serves encoders of one expert, this one has {encoder.num_experts}.")
        self.blocks = nn.ModuleList(encoder.new_layer(number) for number in layers)

    def forward(
        self,
        encoder: Encoder,
        class_token: Float[Tensor, "s d"],
        tokens: Float[Tensor, "n d"],
        sequence: Int[Tensor, " n"],
        coordinates: Shaped[Tensor, "n a"] | None = None,
        wanted: Bool[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "_ d"]:
        """Return the tokens after the branch.

        Args:
            encoder: that of the constructor.
            class_token: of each sequence, from wherever; it takes the place of the learned one.
            tokens: of the sequences, from some layer.
            sequence: of each token, as in ``Encoder.forward``.
            coordinates: as in ``Encoder.forward``.
            wanted: True at the tokens to return, in their order; None: all.
        """
        count = len(class_token)
        wanted = torch.ones_like(sequence, dtype=torch.bool) if wanted is None else wanted
        x, _ = encoder.forward_packed(
            torch.cat([class_token, tokens]),
            torch.cat([torch.arange(count, device=sequence.device), sequence]),
            None if coordinates is None else F.pad(coordinates, (0, 0, count, 0), value=-1),
            wanted=F.pad(wanted, (count, 0)),
            blocks=self.blocks,
        )
        return x
