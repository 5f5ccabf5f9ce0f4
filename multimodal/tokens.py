"""The tokens of a batch, as embeddings cut them and maskings see them.

Letters in shapes: n tokens of all items end to end, items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """The tokens of all items of one modality in a batch, end to end.

    Args:
        inputs: ``(n, ...)`` what the embedding reads for each token: the pixels of a patch, the ids of a note.
        lengths: ``(items,)`` int64, tokens of each item.
        coordinates: ``(n, axes)`` where each token lies: row and column of a patch, index of a note.
        grid: (rows, columns, ...) where every item is a full grid in row-major order; None where items are sequences.
        unplaced: ``(n,)`` bool, True at tokens whose place is not shown; their coordinates are -1. None: all places are.
        marks: ``(n,)`` bool, True at tokens that say nothing themselves and are never hidden, such as the start of a text; None: no such.
        begins: ``(n,)`` bool, True at the first token of each word; None: tokens are no parts of words.
        fields: names of the ids of a token, in order; none where tokens are no ids.
        groups: returns group name -> ``(n,)`` int64, the number of the group (bar, track, ...) of each token within its item, -1 at tokens
            of none. It is a function because most maskings never ask.
    """

    inputs: Tensor
    lengths: Tensor
    coordinates: Tensor
    grid: tuple[int, ...] | None = None
    unplaced: Tensor | None = None
    marks: Tensor | None = None
    begins: Tensor | None = None
    fields: tuple[str, ...] = ()
    groups: Callable[[], Mapping[str, Tensor]] = dict

    @property
    def item(self) -> Tensor:
        """``(n,)`` int64, the item that each token belongs to."""
        return torch.repeat_interleave(self.lengths, output_size=len(self.inputs))

    @property
    def position(self) -> Tensor:
        """``(n,)`` int64, the index of each token within its item."""
        starts = self.lengths.cumsum(0) - self.lengths
        return torch.arange(len(self.inputs), device=self.lengths.device) - starts[self.item]

    @classmethod
    def of_sequences(cls, values: Tensor, lengths: Tensor | None) -> Tokens:
        """Return a token for each entry of sequences; its coordinate is its index in its sequence.

        Args:
            values: ``(n, ...)`` of all sequences end to end; without ``lengths`` ``(items, l, ...)``, sequences of one length.
            lengths: ``(items,)`` int64.
        """
        if lengths is None:
            count, length = values.shape[:2]
            index = torch.arange(length, device=values.device).repeat(count)
            return cls(values.flatten(0, 1), torch.full((count,), length, device=values.device), index[:, None])
        starts = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths, output_size=len(values))
        return cls(values, lengths, (torch.arange(len(values), device=values.device) - starts)[:, None])

    def repeated(self, count: int) -> Tokens:
        """Return all tokens so many times, the items of each time after those of the time before."""
        inputs = self.inputs.repeat(count, *[1] * (self.inputs.ndim - 1))
        repeated = replace(self, inputs=inputs, lengths=self.lengths.repeat(count), coordinates=self.coordinates.repeat(count, 1))
        return repeated._with_said(lambda flag: flag.repeat(count))

    def with_inputs(self, inputs: Tensor) -> Tokens:
        """Return the same tokens with other inputs."""
        return replace(self, inputs=inputs)

    def differing(self, other: Tokens) -> Tensor:
        """Return ``(n,)`` bool, True at tokens whose inputs are not those of ``other``, the same tokens as they are shown otherwise."""
        changed = self.inputs != other.inputs
        return changed if changed.ndim == 1 else changed.flatten(1).any(1)

    def without_places(self, unplaced: Tensor) -> Tokens:
        """Return the same tokens, some of them without their places. ``unplaced``: ``(n,)`` bool, True at these."""
        return replace(self, coordinates=self.coordinates.masked_fill(unplaced[:, None], -1), unplaced=unplaced)

    def select(self, kept: Tensor) -> Tokens:
        """Return some of the tokens, in their order. ``kept``: ``(n,)`` bool, True at these."""
        lengths = torch.zeros_like(self.lengths).index_add_(0, self.item, kept.to(self.lengths.dtype))
        selected = replace(self, inputs=self.inputs[kept], lengths=lengths, coordinates=self.coordinates[kept], grid=None)
        return selected._with_said(lambda flag: flag[kept])

    def _with_said(self, change: Callable[[Tensor], Tensor]) -> Tokens:
        """Return the tokens with all that is said of each of them changed in one way."""
        unplaced, marks, begins = (None if flag is None else change(flag) for flag in (self.unplaced, self.marks, self.begins))

        def groups() -> Mapping[str, Tensor]:
            return {name: change(number) for name, number in self.groups().items()}

        return replace(self, unplaced=unplaced, marks=marks, begins=begins, groups=groups)
