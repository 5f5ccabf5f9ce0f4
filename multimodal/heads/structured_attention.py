"""A pooling that learns which tokens of a sequence to read, several times over.

Letters in shapes: n tokens, s sequences, d width, h heads.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multimodal.heads.pooling import Pooling, softmax_over_sequences
from multimodal.nn import Encoded
from multimodal.nn.first_weights import initialize_linear


class StructuredAttentionPooling(Pooling):
    """Structured self-attention (https://arxiv.org/abs/1703.03130): ``softmax(W2 tanh(W1 x))`` over the tokens of a sequence.

    Layers have no biases. Each of the heads is a mean of the tokens by weights of its own; their vectors lie end to end. It is what
    MidiBERT (https://arxiv.org/abs/2107.05223) tells composers and emotions with. Departure: MidiBERT's published code gives weight to
    padding; sequences are packed here, so there is none.

    Args:
        dim: width of the encoder.
        hidden_dim: width between the two layers.
        num_heads: sets of weights; the pooled vector is as many times as wide as a token.

    Raises:
        ValueError: a width or number below 1.
    """

    def __init__(self, dim: int, hidden_dim: int = 128, num_heads: int = 4) -> None:
        super().__init__()
        for name, value in (("hidden_dim", hidden_dim), ("num_heads", num_heads)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        self.width = num_heads * dim
        self.inner = nn.Linear(dim, hidden_dim, bias=False)
        self.outer = nn.Linear(hidden_dim, num_heads, bias=False)
        self.apply(initialize_linear)

    def forward(
        self, encoded: Encoded, sequence: Int[Tensor, " n"], num_sequences: int | torch.SymInt, valid: Bool[Tensor, " n"] | None = None
    ) -> Float[Tensor, "s hd"]:
        """Return the vectors of the heads end to end; arguments as of ``multimodal.heads.pool``."""
        tokens = encoded.tokens
        weights = softmax_over_sequences(self.outer(torch.tanh(self.inner(tokens))), sequence, num_sequences, valid)
        total = weights.new_zeros(num_sequences, tokens.shape[1])
        own = [total.index_add(0, sequence, weight[:, None] * tokens.to(weights.dtype)) for weight in weights.unbind(1)]
        return torch.cat(own, 1).to(tokens.dtype)
