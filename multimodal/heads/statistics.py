"""Mean and standard deviation of the tokens of a sequence, as one vector.

Letters in shapes: n tokens, s sequences, d width.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multimodal.heads.attentive import attention_weights
from multimodal.nn.first_weights import initialize_linear

LEAST_VARIANCE = 1e-6
"""Of a value over a sequence: the root has no gradient at 0."""


class AttentiveStatistics(nn.Module):
    """The mean and the standard deviation of tokens, each with a weight that is learned (https://arxiv.org/abs/1803.10963; ECAPA-TDNN).

    How much a voice varies tells whose it is; which tokens are of it, such as those that are no silence, is learned.

    Args:
        dim: width of the tokens.
        hidden_dim: width of the layer that a token is weighed by; None: all tokens weigh the same (x-vectors).
    """

    def __init__(self, dim: int, hidden_dim: int | None = 128) -> None:
        super().__init__()
        self.hidden = self.query = None
        if hidden_dim is not None:
            self.hidden = nn.Linear(dim, hidden_dim)
            self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, hidden_dim), std=0.02))
            self.hidden.apply(initialize_linear)

    def forward(
        self,
        tokens: Float[Tensor, "n d"],
        sequence: Int[Tensor, " n"],
        num_sequences: int | torch.SymInt,
        valid: Bool[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "s 2*d"]:
        """Return means, then deviations; of a sequence without tokens zeros and nearly so. Arguments as of ``multimodal.heads.pool``."""
        weight = self.weights(tokens, sequence, num_sequences, valid)
        exact = tokens.to(weight.dtype)  # a sum of many tokens in bfloat16 keeps two digits
        nothing = exact.new_zeros(num_sequences, exact.shape[1])
        mean = nothing.index_add(0, sequence, weight * exact)
        variance = nothing.index_add(0, sequence, weight * (exact - mean[sequence]).square())
        return torch.cat([mean, variance.clamp(min=LEAST_VARIANCE).sqrt()], 1).to(tokens.dtype)

    def weights(
        self,
        tokens: Float[Tensor, "n d"],
        sequence: Int[Tensor, " n"],
        num_sequences: int | torch.SymInt,
        valid: Bool[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n 1"]:
        """Return the weight of each token, in float32 at least: those of a sequence sum to 1, padding has 0."""
        if self.hidden is None or self.query is None:
            key = query = tokens.new_zeros(1, 1)
            key = key.expand(len(tokens), 1)
        else:
            key, query = torch.tanh(self.hidden(tokens)), self.query * self.query.shape[1] ** 0.5  # which attention divides by
        return attention_weights(key[:, None], query.to(key.dtype), sequence, num_sequences, valid)
