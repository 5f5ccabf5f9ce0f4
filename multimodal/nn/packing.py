"""Sequences of unequal length lie end to end, without padding.

Letters in shapes: n tokens of all sequences, s sequences, h heads, e width of a head, d width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Packing:
    """The attention plan of a batch, made once and used by every layer.

    Tokens are sorted so that sequences of equal length are neighbours: each such group is then a dense block, and attention over it is
    one dense call on a view. No work is spent on padding, and no token sees another sequence.

    Args:
        order: ``(n,)`` int64, for each packed position the index of the token that stands there.
        inverse: ``(n,)`` int64, for each token its packed position.
        sequence: ``(n,)`` int64, for each packed position the number of its sequence.
        lengths: ``(s,)`` int64, tokens of each sequence.
        groups: (sequences, length) of each block, in packed order.
    """

    order: Tensor
    inverse: Tensor
    sequence: Tensor
    lengths: Tensor
    groups: tuple[tuple[int, int], ...]

    @classmethod
    def from_sequence(cls, sequence: Int[Tensor, " n"]) -> Packing:
        """Plan for tokens in any order, given the number of the sequence that each belongs to.

        Within a sequence the tokens keep their order.
        """
        lengths = torch.bincount(sequence)
        order = (lengths[sequence] * len(lengths) + sequence).argsort(stable=True)  # by length, then by sequence
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        values, counts = lengths[lengths > 0].unique(return_counts=True)
        return cls(order, inverse, sequence[order], lengths, tuple(zip(counts.tolist(), values.tolist(), strict=True)))

    def attend(
        self, query: Float[Tensor, "n h e"], key: Float[Tensor, "n h e"], value: Float[Tensor, "n h e"], dropout: float = 0.0
    ) -> Float[Tensor, "n h e"]:
        """Scaled dot-product attention within each sequence; arguments and result in packed order."""
        if not self.groups:
            return value  # of no tokens: nothing to mix, and still connected to the parameters
        sizes = [count * length for count, length in self.groups]
        blocks = zip(query.split(sizes), key.split(sizes), value.split(sizes), self.groups, strict=True)
        return torch.cat([_attend_block(q, k, v, length, dropout) for q, k, v, (_, length) in blocks])


def _attend_block(query: Tensor, key: Tensor, value: Tensor, length: int, dropout: float) -> Tensor:
    query, key, value = (x.unflatten(0, (-1, length)).transpose(1, 2) for x in (query, key, value))  # (g l) h e -> g h l e
    mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    return mixed.transpose(1, 2).flatten(0, 1)  # g h l e -> (g l) h e
