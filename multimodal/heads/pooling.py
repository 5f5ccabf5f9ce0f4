"""One vector for each sequence.

Letters in shapes: n tokens, s sequences, d width.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multimodal.nn import Encoded

Pool = Literal["mean", "class", "first", "special"]
POOLS = get_args(Pool)


def pool(
    encoded: Encoded, sequence: Int[Tensor, " n"], num_sequences: int, how: Pool = "mean", valid: Bool[Tensor, " n"] | None = None
) -> Float[Tensor, "s d"]:
    """Return one vector for each sequence.

    Args:
        encoded: what the encoder returned.
        sequence: the number of the sequence of each token.
        num_sequences: of all tokens.
        how: "mean" of the tokens, class and register tokens left out (BEiT); the "class" token (ViT); the "first" of the tokens (BERT, whose
            first token is one of the text); the mean of the "special" tokens, class and registers (AST, distilled DeiT).
        valid: False at tokens that are padding; None: none is.

    Raises:
        ValueError: the encoder has no class token to read.
    """
    tokens = encoded.tokens
    if how in ("class", "special"):
        if encoded.class_token is None:
            raise ValueError(f"pool {how!r} needs an encoder with a class token; this one has none.")
        if how == "class" or encoded.registers is None:
            return encoded.class_token
        return torch.cat([encoded.class_token[:, None], encoded.registers], 1).mean(1)
    if how == "first":
        index = torch.arange(len(tokens), device=tokens.device)
        firsts = torch.full((num_sequences,), len(tokens), device=tokens.device).scatter_reduce(0, sequence, index, "amin")
        return torch.cat([tokens, tokens.new_zeros(1, tokens.shape[-1])])[firsts]  # zeros for a sequence without tokens
    weight = torch.ones(len(tokens), device=tokens.device) if valid is None else valid.float()
    total = tokens.new_zeros(num_sequences, tokens.shape[-1]).index_add(0, sequence, tokens * weight[:, None].to(tokens.dtype))
    count = weight.new_zeros(num_sequences).index_add(0, sequence, weight).clamp(min=1)
    return total / count[:, None]
