"""One vector for each sequence.

Letters in shapes: n tokens, s sequences, d width, h heads, w width of the pooled vector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multimodal.nn import Encoded
from multimodal.recorded import Recorded

Pool = Literal["mean", "class", "first", "special"]
POOLS = get_args(Pool)


class Pooling(Recorded, nn.Module, ABC):
    """A way to one vector for each sequence that is learned. Its constructor takes the width of the encoder first."""

    width: int
    """Of the pooled vector."""

    @abstractmethod
    def forward(
        self, encoded: Encoded, sequence: Int[Tensor, " n"], num_sequences: int | torch.SymInt, valid: Bool[Tensor, " n"] | None = None
    ) -> Float[Tensor, "s w"]:
        """Return one vector for each sequence, zeros for one without tokens; arguments as of ``pool``."""


def pool(
    encoded: Encoded,
    sequence: Int[Tensor, " n"],
    num_sequences: int | torch.SymInt,
    how: Pool = "mean",
    valid: Bool[Tensor, " n"] | None = None,
) -> Float[Tensor, "s d"]:
    """Return one vector for each sequence.

    Args:
        encoded: what the encoder returned.
        sequence: the number of the sequence of each token.
        num_sequences: of all tokens.
        how: "mean" of the tokens, in float32 or better, class and register tokens left out (BEiT); the "class" token (ViT); the "first" of
            the tokens (BERT, whose first token is one of the text); the mean of the "special" tokens, class and registers (AST, distilled
            DeiT).
        valid: False at tokens that are padding; None: none is.

    Returns:
        Zeros for a sequence without such tokens.

    Raises:
        ValueError: the encoder has no class token to read, or ``how`` is none of these.
    """
    tokens = encoded.tokens
    if how not in POOLS:
        raise ValueError(f"pool must be one of {', '.join(POOLS)}, got {how!r}.")
    if how in ("class", "special"):
        if encoded.class_token is None:
            raise ValueError(f"pool {how!r} needs an encoder with a class token; this one has none.")
        own = encoded.class_token
        if how == "special" and encoded.registers is not None:
            own = torch.cat([own[:, None], encoded.registers], 1).mean(1)
        missing = num_sequences - own.shape[0]  # the encoder does not know of sequences without tokens after the last
        return own if missing == 0 else torch.cat([own, own.new_zeros(missing, own.shape[1])])
    if how == "first":
        index = torch.arange(tokens.shape[0], device=tokens.device)
        firsts = torch.full((num_sequences,), tokens.shape[0], device=tokens.device).scatter_reduce(0, sequence, index, "amin")
        return torch.cat([tokens, tokens.new_zeros(1, tokens.shape[-1])])[firsts]  # zeros for a sequence without tokens
    exact = torch.promote_types(tokens.dtype, torch.float32)  # a sum of many tokens in bfloat16 keeps two digits
    weight = torch.ones(tokens.shape[0], device=tokens.device, dtype=exact) if valid is None else valid.to(exact)
    total = weight.new_zeros(num_sequences, tokens.shape[-1]).index_add(0, sequence, tokens.to(exact) * weight[:, None])
    count = weight.new_zeros(num_sequences).index_add(0, sequence, weight).clamp(min=1)
    return (total / count[:, None]).to(tokens.dtype)


def softmax_over_sequences(
    logits: Float[Tensor, "n h"], sequence: Int[Tensor, " n"], num_sequences: int | torch.SymInt, valid: Bool[Tensor, " n"] | None = None
) -> Float[Tensor, "n h"]:
    """Return the softmax over the tokens of each sequence, in float32 at least; 0 at padding.

    Args:
        logits: of each token, for each head.
        sequence: the number of the sequence of each token.
        num_sequences: of all tokens.
        valid: False at padding; None: there is none.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if valid is not None:
        logits = logits.masked_fill(~valid[:, None], torch.finfo(logits.dtype).min)
    index = sequence[:, None].expand_as(logits)
    lowest = torch.full((num_sequences, logits.shape[1]), torch.finfo(logits.dtype).min, dtype=logits.dtype, device=logits.device)
    largest = lowest.scatter_reduce(0, index, logits.detach(), "amax")
    weight = (logits - largest[sequence]).exp()
    weight = weight if valid is None else weight * valid[:, None]
    total = weight.new_zeros(num_sequences, weight.shape[1]).index_add(0, sequence, weight)
    return weight / total.clamp(min=torch.finfo(weight.dtype).tiny)[sequence]
