"""From the visible tokens of an item to its hidden ones.

Letters in shapes: n tokens of all items, v visible ones, m hidden ones, i items, d width of the encoder, e width of the decoder, a axes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from multimodal.nn.attention import Attention
from multimodal.nn.encoder import Encoder
from multimodal.nn.first_weights import FirstWeights, initialize_linear
from multimodal.nn.positions import SinCosPosition2d
from multimodal.recorded import Recorded


class TokenDecoder(Recorded, nn.Module, ABC):
    """Makes the hidden tokens of an item of its visible ones; it exists for pretraining only.

    Its constructor takes the width of the encoder first.
    """

    width: int
    """Of what it makes."""

    def check(self, coordinates: Shaped[Tensor, "n a"]) -> None:
        """Look whether tokens that lie there can be decoded.

        Raises:
            ValueError: they cannot.
        """

    @abstractmethod
    def forward(
        self,
        seen: Float[Tensor, "v d"],
        visible: Bool[Tensor, " n"],
        masked: Bool[Tensor, " n"],
        item: Int[Tensor, " n"],
        coordinates: Shaped[Tensor, "n a"],
        class_token: Float[Tensor, "i d"] | None = None,
    ) -> Float[Tensor, "m e"]:
        """Return the hidden tokens.

        Args:
            seen: the encoder's output for the visible tokens.
            visible: True at these.
            masked: True at the tokens to return.
            item: of each token, from 0.
            coordinates: where each token lies in its item.
            class_token: of the sequence of each item.
        """


def check_grid(coordinates: Shaped[Tensor, "n a"], decoder: TokenDecoder) -> None:
    """Look whether tokens have a row and a column, which a decoder of grids needs.

    Raises:
        ValueError: they have not.
    """
    if coordinates.shape[1] != 2 or coordinates.is_floating_point():
        found = f"{coordinates.shape[1]} of {coordinates.dtype}"
        raise ValueError(f"{type(decoder).__name__} needs tokens with a row and a column, got {found}.")


class Decoder(TokenDecoder):
    """A small transformer that fills in hidden tokens: visible ones, and a learned mask token at the others (MAE, arXiv 2111.06377).

    Each item is decoded by itself; where the encoder has a class token, that of the item's sequence comes first and carries what the
    encoder saw elsewhere in the sample.

    Args:
        dim: width of the encoder (filled in by the modality).
        width: of the decoder. MAE: 512, VideoMAE base: 384.
        depth: layers. MAE: 8, VideoMAE base: 4.
        num_heads: attention heads. MAE: 16, VideoMAE base: 6.
        position: builds the positions that are added from the width; called with ``(n, a)`` coordinates.
        attention: builds the attention of a layer from width and number of heads.
        first_weights: how linear layers start, as in ``Encoder``. MAE: "xavier_uniform".
    """

    def __init__(
        self,
        dim: int,
        width: int = 512,
        depth: int = 8,
        num_heads: int = 16,
        position: Callable[[int], nn.Module] = SinCosPosition2d,
        attention: Callable[[int, int], Attention] = Attention,
        first_weights: FirstWeights = "normal",
    ) -> None:
        super().__init__()
        self.width = width
        self.proj = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.empty(width))
        self.position = position(width)
        self.layers = Encoder(width, depth, num_heads, attention=attention, first_weights=first_weights)
        initialize_linear(self.proj, first_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def check(self, coordinates: Shaped[Tensor, "n a"]) -> None:
        """Look whether the positions fit; see ``TokenDecoder.check``."""
        self.position(coordinates)

    def filled(self, seen: Float[Tensor, "v d"], visible: Bool[Tensor, " n"], coordinates: Shaped[Tensor, "n a"]) -> Float[Tensor, "n e"]:
        """Return all tokens as the layers get them: visible ones projected, the mask token at others, each with its position."""
        known = self.proj(seen)
        tokens = self.mask_token.to(known.dtype).expand(len(visible), -1).index_copy(0, visible.nonzero()[:, 0], known)
        return tokens + self.position(coordinates)

    def forward(
        self,
        seen: Float[Tensor, "v d"],
        visible: Bool[Tensor, " n"],
        masked: Bool[Tensor, " n"],
        item: Int[Tensor, " n"],
        coordinates: Shaped[Tensor, "n a"],
        class_token: Float[Tensor, "i d"] | None = None,
    ) -> Float[Tensor, "m e"]:
        """Return the hidden tokens; see ``TokenDecoder.forward``."""
        tokens = self.filled(seen, visible, coordinates)
        if class_token is not None:
            count = len(class_token)
            tokens = torch.cat([self.proj(class_token), tokens])  # which has no position
            item = torch.cat([torch.arange(count, device=item.device), item])
            masked = torch.cat([masked.new_zeros(count), masked])
        return self.layers(tokens, item, wanted=masked).tokens
