"""From the tokens of a sequence to the logits of ids, step by step, for connectionist temporal classification.

Letters in shapes: n tokens, t steps of all sequences, d width, i ids and the blank.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from multimodal.nn.first_weights import initialize_linear
from multimodal.recorded import Recorded


class CtcHead(Recorded, nn.Module):
    """A norm, dropout and one linear layer for each step: the logits of the ids, and of the blank, "no id ends here".

    The blank is the last id, ``num_ids``, so that the ids of a tokenizer stay what they are (Graves et al. 2006, Connectionist Temporal
    Classification, https://www.cs.toronto.edu/~graves/icml_2006.pdf).

    Args:
        dim: width of the encoder.
        num_ids: number of ids without the blank.
        norm: builds a norm of the steps from the width; None: no norm, as the output of the encoder has one.
        dropout: share of a step's values dropped in training.

    Raises:
        ValueError: ``num_ids`` below 1.
    """

    def __init__(self, dim: int, num_ids: int, norm: Callable[[int], nn.Module] | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        if num_ids < 1:
            raise ValueError(f"num_ids must be at least 1, got {num_ids}.")
        self.num_ids = num_ids
        self.norm = norm(dim) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.proj = nn.Linear(dim, num_ids + 1)
        self.apply(initialize_linear)

    @property
    def blank(self) -> int:
        """The id of the blank."""
        return self.num_ids

    def forward(self, steps: Float[Tensor, "t d"]) -> Float[Tensor, "t i"]:
        """Return the logits of each step; the last column is the blank's."""
        return self.proj(self.drop(self.norm(steps)))


def time_steps(
    tokens: Float[Tensor, "n d"], sequence: Int[Tensor, " n"], place: Shaped[Tensor, " n"]
) -> tuple[Float[Tensor, "t d"], Int[Tensor, " t"]]:
    """Average the tokens of a sequence that lie at one place in time, such as the bands of the same frames.

    Args:
        tokens: of all sequences, in any order.
        sequence: the number of the sequence of each token.
        place: where each token lies in time, a whole number, at least 0.

    Returns:
        The steps of all sequences end to end, the first sequence first, in the order of time, and the sequence of each.
    """
    place = place.long()
    span = int(place.max()) + 1 if len(place) else 1
    steps, step_of, count = (sequence * span + place).unique(return_inverse=True, return_counts=True)
    exact = torch.promote_types(tokens.dtype, torch.float32)
    total = tokens.new_zeros(len(steps), tokens.shape[1], dtype=exact).index_add(0, step_of, tokens.to(exact))
    return (total / count[:, None]).to(tokens.dtype), steps.div(span, rounding_mode="floor")
