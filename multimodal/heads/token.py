"""From vectors of places, such as the frames of a sound, to a class for each.

Letters in shapes: r places, d width, c classes.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from multimodal.nn.first_weights import initialize_linear
from multimodal.recorded import Recorded


class TokenClassifier(Recorded, nn.Module):
    """A norm, dropout and one linear layer for each place.

    Args:
        dim: width of the encoder.
        num_classes: number of classes.
        norm: builds a norm of the vectors from the width; None: no norm, as the output of the encoder has one.
        dropout: share of the values dropped in training.
        init_scale: first weights are multiplied by this.

    Raises:
        ValueError: ``num_classes`` below 1.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        norm: Callable[[int], nn.Module] | None = None,
        dropout: float = 0.0,
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}.")
        self.num_classes = num_classes
        self.norm = norm(dim) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.proj = nn.Linear(dim, num_classes)
        self.apply(initialize_linear)
        self.proj.weight.data.mul_(init_scale)

    def forward(self, places: Float[Tensor, "r d"]) -> Float[Tensor, "r c"]:
        """Return the logits of each place."""
        return self.proj(self.drop(self.norm(places)))
