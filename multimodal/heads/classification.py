"""From the tokens of a sequence to classes.

Letters in shapes: n tokens, s sequences, c classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multimodal.heads.pooling import Pool, pool
from multimodal.nn import Encoded
from multimodal.nn.first_weights import initialize_linear
from multimodal.recorded import Recorded

HIDDEN = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}


class ClassificationHead(Recorded, nn.Module):
    """Pool, normalise, drop, and one linear layer to the classes (BEiT, ViT, MAE, AST, BEATs); or a hidden layer before it (BERT).

    Args:
        dim: width of the encoder.
        num_classes: number of classes or labels.
        pool: how the tokens of a sequence become one vector; see ``multimodal.heads.pool``.
        norm: builds a norm of that vector from the width; None: no norm.
        hidden: activation of a hidden layer of the same width (BERT: "tanh"; ModernBERT: "gelu"); None: no hidden layer.
        hidden_norm: builds a norm after that activation from the width (ModernBERT); None: no norm.
        hidden_bias: whether the hidden layer has a bias. ModernBERT: no.
        dropout: share of the pooled vector dropped in training.
        init_scale: first weights are multiplied by this. BEiT: 0.001.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        pool: Pool = "mean",
        norm: Callable[[int], nn.Module] | None = None,
        hidden: Literal["tanh", "relu", "gelu"] | None = None,
        hidden_norm: Callable[[int], nn.Module] | None = None,
        hidden_bias: bool = True,
        dropout: float = 0.0,
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}.")
        if hidden is None and hidden_norm is not None:
            raise ValueError("hidden_norm has an effect only with a hidden layer: set hidden, or leave it out.")
        self.num_classes, self.how = num_classes, pool
        self.norm = norm(dim) if norm else nn.Identity()
        after = hidden_norm(dim) if hidden_norm else nn.Identity()
        self.hidden = nn.Sequential(nn.Linear(dim, dim, bias=hidden_bias), HIDDEN[hidden](), after) if hidden else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.proj = nn.Linear(dim, num_classes)
        self.apply(initialize_linear)
        self.proj.weight.data.mul_(init_scale)

    def forward(
        self, encoded: Encoded, sequence: Int[Tensor, " n"], num_sequences: int | torch.SymInt, valid: Bool[Tensor, " n"] | None = None
    ) -> Float[Tensor, "s c"]:
        """Return the logits of each sequence; arguments as of ``multimodal.heads.pool``."""
        pooled = pool(encoded, sequence, num_sequences, self.how, valid)
        return self.proj(self.drop(self.hidden(self.norm(pooled))))
