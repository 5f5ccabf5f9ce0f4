"""A head that learns which tokens of a sequence to read.

Letters in shapes: n tokens, s sequences, h heads, e width of a head, d width, c classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multimodal.heads.classification import ClassificationHead
from multimodal.heads.pooling import softmax_over_sequences
from multimodal.nn import Encoded, LayerNorm
from multimodal.nn.first_weights import initialize_linear


class AttentiveHead(ClassificationHead):
    """One learned query attends to the tokens of a sequence; what it reads is classified by one linear layer.

    With a frozen encoder it is the attentive probe of V-JEPA (https://arxiv.org/abs/2404.08471) and CAPI (https://arxiv.org/abs/2502.08769):
    for encoders whose mean token says little, such as those that predict pixels. Sequences are packed, so no work is done on padding, and
    the logits of a sequence do not depend on the rest of the batch.

    Args:
        dim: width of the encoder.
        num_classes: number of classes.
        num_heads: heads of the query; must divide ``dim``.
        norm: builds the norm of the tokens that are read, from the width; None: no norm.
        mlp: builds an MLP, from the width, that is added to what was read, after a norm of its own (V-JEPA:
            ``multimodal.nn.Mlp``); None: no MLP (CAPI).
        read_special: whether the query sees class and register tokens too.
        dropout: share of the pooled vector dropped in training.
        init_scale: first weights of the last layer are multiplied by this.

    Raises:
        ValueError: ``num_heads`` does not divide ``dim``.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        num_heads: int = 8,
        norm: Callable[[int], nn.Module] | None = LayerNorm,
        mlp: Callable[[int], nn.Module] | None = None,
        read_special: bool = False,
        dropout: float = 0.0,
        init_scale: float = 1.0,
    ) -> None:
        super().__init__(dim, num_classes, dropout=dropout, init_scale=init_scale)
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide the width {dim}, got {num_heads}.")
        self.num_heads, self.read_special = num_heads, read_special
        self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(num_heads, dim // num_heads), std=0.02))
        self.input_norm = norm(dim) if norm else nn.Identity()
        self.key_value = nn.Linear(dim, 2 * dim)
        self.mix = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(norm(dim) if norm else nn.Identity(), mlp(dim)) if mlp else None
        for part in (self.key_value, self.mix, *([self.mlp] if self.mlp is not None else [])):
            part.apply(initialize_linear)

    def forward(
        self, encoded: Encoded, sequence: Int[Tensor, " n"], num_sequences: int | torch.SymInt, valid: Bool[Tensor, " n"] | None = None
    ) -> Float[Tensor, "s c"]:
        """Return the logits of each sequence; arguments as of ``multimodal.heads.pool``."""
        tokens, sequence, valid = _with_special(encoded, sequence, valid) if self.read_special else (encoded.tokens, sequence, valid)
        key, value = self.key_value(self.input_norm(tokens)).unflatten(-1, (2, self.num_heads, -1)).unbind(1)
        weight = attention_weights(key, self.query.to(key.dtype), sequence, num_sequences, valid)
        mixed = weight.new_zeros(num_sequences, *value.shape[1:]).index_add(0, sequence, weight[..., None] * value.to(weight.dtype))
        pooled = self.mix(mixed.flatten(1).to(value.dtype))
        pooled = pooled if self.mlp is None else pooled + self.mlp(pooled)
        return self.proj(self.drop(pooled))


def attention_weights(
    key: Float[Tensor, "n h e"],
    query: Float[Tensor, "h e"],
    sequence: Int[Tensor, " n"],
    num_sequences: int | torch.SymInt,
    valid: Bool[Tensor, " n"] | None = None,
) -> Float[Tensor, "n h"]:
    """Return the softmax over the tokens of each sequence, in float32 at least; 0 at padding.

    Args:
        key: of each token.
        query: the same for all sequences.
        sequence: the number of the sequence of each token.
        num_sequences: of all tokens.
        valid: False at padding; None: there is none.
    """
    return softmax_over_sequences(torch.einsum("nhe,he->nh", key, query) * key.shape[-1] ** -0.5, sequence, num_sequences, valid)


def _with_special(encoded: Encoded, sequence: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the tokens with class and register tokens before them, the sequence of each, and which are no padding.

    Raises:
        ValueError: the encoder has none.
    """
    if encoded.class_token is None:
        raise ValueError("read_special needs an encoder with a class token; this one has none.")
    first = encoded.class_token[:, None]
    special = first if encoded.registers is None else torch.cat([first, encoded.registers], 1)
    owner = torch.arange(special.shape[0], device=sequence.device)[:, None].expand(special.shape[:2]).flatten()
    valid = None if valid is None else torch.cat([torch.ones_like(owner, dtype=torch.bool), valid])
    return torch.cat([special.flatten(0, 1), encoded.tokens]), torch.cat([owner, sequence]), valid
