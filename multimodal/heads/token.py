"""From vectors of places, such as the frames of a sound, to a class for each.

Letters in shapes: r places, d width, c classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from multimodal.heads.classification import hidden_layer
from multimodal.nn.first_weights import initialize_linear
from multimodal.recorded import Recorded


class TokenClassifier(Recorded, nn.Module):
    """A norm, dropout and one linear layer for each place; or a hidden layer before it (MidiBERT, https://arxiv.org/abs/2107.05223).

    Args:
        dim: width of the encoder.
        num_classes: number of classes.
        norm: builds a norm of the vectors from the width; None: no norm, as the output of the encoder has one.
        dropout: share of the values dropped in training.
        init_scale: first weights are multiplied by this.
        hidden: activation of a hidden layer (MidiBERT: "relu"); None: no hidden layer.
        hidden_dim: width of the hidden layer; None: that of the encoder. MidiBERT: 256.

    Raises:
        ValueError: ``num_classes`` or ``hidden_dim`` below 1, or the latter without a hidden layer.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        norm: Callable[[int], nn.Module] | None = None,
        dropout: float = 0.0,
        init_scale: float = 1.0,
        hidden: Literal["tanh", "relu", "gelu"] | None = None,
        hidden_dim: int | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}.")
        self.num_classes = num_classes
        self.norm = norm(dim) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.hidden, width = hidden_layer(dim, hidden, hidden_dim)
        self.proj = nn.Linear(width, num_classes)
        self.apply(initialize_linear)
        self.proj.weight.data.mul_(init_scale)

    def forward(self, places: Float[Tensor, "r d"]) -> Float[Tensor, "r c"]:
        """Return the logits of each place."""
        return self.proj(self.hidden(self.drop(self.norm(places))))
