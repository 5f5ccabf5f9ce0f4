"""What one encoder has made as the input of another.

Letters in shapes: n tokens of all items end to end, c width of the vectors, d width of the encoder.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from multimodal.nn import initialize_linear
from multimodal.protocols import Embed, Tokens


class VectorEmbed(Embed):
    """One linear layer from another encoder's tokens (FLAVA, https://arxiv.org/abs/2112.04482); hidden ones become a learned mask token.

    Args:
        dim: width of the encoder.
        in_dim: width of the vectors.
    """

    def __init__(self, dim: int, in_dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(dim))
        initialize_linear(self.proj)

    def tokens(self, values: Float[Tensor, "*items c"], lengths: Tensor | None = None) -> Tokens:
        """Return one token per vector; its coordinate is its index in the item.

        Args:
            values: ``(n, c)`` of all items end to end; without lengths ``(items, l, c)``, of items of one length.
            lengths: ``(items,)`` int64.

        Raises:
            ValueError: the vectors have another shape.
        """
        if values.ndim != (3 if lengths is None else 2) or values.shape[-1] != self.proj.in_features:
            given = "(items, length, width) without lengths" if lengths is None else "(n, width) with lengths"
            raise ValueError(f"vectors are {given} and {self.proj.in_features} wide, got {tuple(values.shape)}.")
        return Tokens.of_sequences(values, lengths)

    def forward(self, tokens: Tokens, shown_as_mask: Bool[Tensor, " n"] | None = None) -> Float[Tensor, "n d"]:
        """Project vectors; the mask replaces a vector after the projection."""
        x = self.proj(tokens.inputs)
        return x if shown_as_mask is None else torch.where(shown_as_mask[:, None], self.mask_token.to(x.dtype), x)
