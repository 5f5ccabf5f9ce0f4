"""Sequences of unequal length lie end to end, without padding.

Letters in shapes: n tokens of all sequences, s sequences, g sequences of a group, l their length, ... what a token holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F


@dataclass(eq=False)  # not frozen: torch.compile reads all of a frozen one, and compiles again where anything differs
class Packing:
    """How the tokens of a batch lie in memory; made once and used by every layer.

    Tokens are sorted so that sequences of equal length are neighbours: each such group is then a dense block, and attention over it is
    one dense call on a view. No work is spent on padding, and no token sees another sequence.

    Args:
        sequence: ``(n,)`` int64, for each packed position the number of its sequence.
        lengths: ``(s,)`` int64, tokens of each sequence.
        groups: (sequences, length) of each block, in packed order.
        order: ``(n,)`` int64, for each packed position the index of the token that stands there; None: the tokens come in packed order.
        inverse: ``(n,)`` int64, for each token its packed position; None as ``order``.
        valid: ``(s, l)`` bool, True at real tokens, for sequences of one padded length (exported models only); None: no padding.
        static: the groups are those of the shape of the input, so that the plan can be traced and exported.
    """

    sequence: Tensor
    lengths: Tensor
    groups: tuple[tuple[int | torch.SymInt, int | torch.SymInt], ...]
    order: Tensor | None = None
    inverse: Tensor | None = None
    valid: Tensor | None = None
    static: bool = False

    @classmethod
    def from_sequence(cls, sequence: Int[Tensor, " n"]) -> Packing:
        """Plan for tokens in any order, given the number of the sequence that each belongs to.

        Within a sequence the tokens keep their order. Where they come sorted by length and sequence already, nothing is moved.
        """
        lengths = torch.bincount(sequence)
        values, counts = lengths[lengths > 0].unique(return_counts=True)
        groups = tuple(zip(counts.tolist(), values.tolist(), strict=True))
        rank = lengths[sequence] * len(lengths) + sequence  # by length, then by sequence
        if bool((rank[1:] >= rank[:-1]).all()):
            return cls(sequence, lengths, groups)
        order = rank.argsort(stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        return cls(sequence[order], lengths, groups, order, inverse)

    @classmethod
    def dense(
        cls, count: int | torch.SymInt, length: int | torch.SymInt, device: torch.device, valid: Bool[Tensor, "s l"] | None = None
    ) -> Packing:
        """Plan for ``count`` sequences of one length, end to end; where ``valid`` is False a token is padding, which nothing attends to.

        No value of a tensor is looked at, so that the plan can be traced and exported.
        """
        rows, columns = cast(int, count), cast(int, length)  # torch takes a symbol for a number
        sequence = torch.arange(rows, device=device)[:, None].expand(rows, columns).reshape(-1)
        return cls(sequence, torch.full((rows,), columns, device=device), ((count, length),), valid=valid, static=True)

    @cached_property
    def ends(self) -> Int[Tensor, " ends"]:
        """0, then for each sequence with tokens, in packed order, the place after its last one; int32, as kernels for it want."""
        counts, values = (torch.tensor(column, device=self.sequence.device) for column in zip(*self.groups, strict=True))
        return F.pad(values.repeat_interleave(counts).cumsum(0), (1, 0)).int()

    @cached_property
    def index(self) -> Int[Tensor, " n"]:
        """For each packed position the index of its token in its sequence."""
        starts = self.ends[:-1].long()
        return torch.arange(len(self.sequence), device=starts.device) - starts.repeat_interleave(self.ends.diff())

    def pack(self, x: Shaped[Tensor, "n ..."]) -> Shaped[Tensor, "n ..."]:
        """Return what belongs to the tokens in packed order."""
        return x if self.order is None else x.index_select(0, self.order)

    def unpack(self, x: Shaped[Tensor, "m ..."], kept: Int[Tensor, " m"] | None = None) -> Shaped[Tensor, "m ..."]:
        """Undo ``pack``; ``kept``: the packed positions, in ascending order, that ``x`` is of; None: all."""
        if kept is not None:
            return x if self.order is None else x[self.order[kept].argsort()]
        return x if self.inverse is None else x.index_select(0, self.inverse)

    def blocks(self, x: Shaped[Tensor, "n ..."]) -> list[Tensor]:
        """Return a view of each group of packed ``x``, ``(g, l, ...)``."""
        if len(self.groups) == 1:
            return [x.unflatten(0, self.groups[0])]
        sizes = [count * length for count, length in self.groups]
        return [part.unflatten(0, group) for part, group in zip(x.split(sizes), self.groups, strict=True)]

    def join(self, blocks: Sequence[Tensor]) -> Shaped[Tensor, "n ..."]:
        """Undo ``blocks``."""
        flat = [block.flatten(0, 1) for block in blocks]
        return flat[0] if len(flat) == 1 else torch.cat(flat)


def pool_mean(tokens: Float[Tensor, "n d"], sequence: Int[Tensor, " n"], num_sequences: int) -> Float[Tensor, "s d"]:
    """Return the mean token of each sequence; zeros for a sequence without tokens."""
    total = tokens.new_zeros(num_sequences, tokens.shape[-1]).index_add_(0, sequence, tokens)
    count = torch.bincount(sequence, minlength=num_sequences).clamp(min=1)
    return total / count[:, None]
