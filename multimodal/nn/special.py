"""Class and register tokens.

Letters in shapes: n tokens, s sequences, k sequences that have special tokens, p special tokens of one, d width, a axes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.nn.first_weights import FirstWeights, initialize_vectors


class WithSpecial(NamedTuple):
    """Tokens with the special ones of their sequences before all others.

    Args:
        tokens: ``(k p + n, d)``.
        sequence: ``(k p + n,)``.
        coordinates: ``(k p + n, a)``, -1 at special tokens; or None.
        expert: ``(k p + n,)``, 0 at special tokens; or None.
        owners: ``(k,)`` int64, the sequences that have special tokens.
        num_sequences: of all tokens.
    """

    tokens: Tensor
    sequence: Tensor
    coordinates: Tensor | None
    expert: Tensor | None
    owners: Tensor
    num_sequences: int


class SpecialTokens(nn.Module):
    """Learned first tokens of each sequence: a class token, then registers (DINOv2, https://arxiv.org/abs/2309.16588).

    Args:
        dim: width.
        count: how many, the class token included.
        positions: whether they have learned positions of their own, to be added (ViT, MAE).
        first_weights: how they start.
    """

    def __init__(self, dim: int, count: int, positions: bool = False, first_weights: FirstWeights = "normal") -> None:
        super().__init__()
        self.count = count
        self.tokens = nn.Parameter(torch.empty(count, dim))
        self.positions = nn.Parameter(torch.empty(count, dim)) if positions else None
        for parameter in self.parameters():
            initialize_vectors(parameter, first_weights)

    def vectors(self) -> Float[Tensor, "p d"]:
        """Return the tokens of a sequence."""
        return self.tokens if self.positions is None else self.tokens + self.positions

    def prepend(self, tokens: Tensor, sequence: Tensor, coordinates: Tensor | None, expert: Tensor | None) -> WithSpecial:
        """Put special tokens before all others: those of every sequence or, where tokens have experts, of those with tokens of expert 0."""
        num_sequences = int(sequence.max()) + 1 if len(sequence) else 0
        owners = torch.arange(num_sequences, device=sequence.device)
        if expert is not None:
            owners = owners[torch.bincount(sequence[expert == 0], minlength=num_sequences) > 0]
        added = len(owners) * self.count
        return WithSpecial(
            torch.cat([self.vectors().to(tokens.dtype).repeat(len(owners), 1), tokens]),
            torch.cat([owners.repeat_interleave(self.count), sequence]),
            None if coordinates is None else F.pad(coordinates, (0, 0, added, 0), value=-1),
            None if expert is None else F.pad(expert, (added, 0)),
            owners,
            num_sequences,
        )

    def read(self, x: Float[Tensor, "m d"], owners: Int[Tensor, " k"], num_sequences: int) -> Float[Tensor, "s p d"]:
        """Return what became of the special tokens of each sequence; zeros for one that has none."""
        firsts = x[: len(owners) * self.count].view(len(owners), self.count, x.shape[-1])
        if len(owners) == num_sequences:
            return firsts
        return firsts.new_zeros(num_sequences, *firsts.shape[1:]).index_copy(0, owners, firsts)

    def prepend_dense(self, tokens: Shaped[Tensor, "s l d"]) -> Shaped[Tensor, "s m d"]:
        """Put special tokens before those of each sequence."""
        return torch.cat([self.vectors().to(tokens.dtype).expand(tokens.shape[0], -1, -1), tokens], 1)
