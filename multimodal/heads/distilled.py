"""A classifier that was distilled from another one.

Letters in shapes: n tokens, s sequences, c classes.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.nn import Encoded
from multimodal.nn.first_weights import initialize_linear
from multimodal.recorded import Recorded


class DistilledHead(Recorded, nn.Module):
    """The mean of two classifiers: one reads the class token, the other the first register, which learned from a teacher (DeiT).

    See https://arxiv.org/abs/2012.12877.

    Args:
        dim: width of the encoder.
        num_classes: number of classes.
    """

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}.")
        self.num_classes = num_classes
        self.proj, self.distilled = nn.Linear(dim, num_classes), nn.Linear(dim, num_classes)
        self.apply(initialize_linear)

    def forward(
        self, encoded: Encoded, sequence: Int[Tensor, " n"], num_sequences: int, valid: Bool[Tensor, " n"] | None = None
    ) -> Float[Tensor, "s c"]:
        """Return the logits of each sequence; arguments as of ``multimodal.heads.pool``.

        Raises:
            ValueError: the encoder has no register token.
        """
        if encoded.class_token is None or encoded.registers is None:
            raise ValueError("DistilledHead reads a class token and a register: give the encoder class_token and num_registers 1.")
        firsts = torch.stack([encoded.class_token, encoded.registers[:, 0]])
        own, distilled = F.pad(firsts, (0, 0, 0, num_sequences - firsts.shape[1]))  # sequences without tokens after the last
        return (self.proj(own) + self.distilled(distilled)) / 2
