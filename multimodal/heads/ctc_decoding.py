"""From the probabilities of ids and the blank, step by step, to sequences of ids.

Letters in shapes: b sequences, t steps of the longest, i ids and the blank, which is the last; v ids, k prefixes kept, l ids of a result.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

NOBODY = -1
"""The number of a prefix that is none: fewer are known than are kept."""
NO_PARENT = -2


class Hypothesis(NamedTuple):
    """One reading of a sequence.

    Args:
        ids: ``(l,)`` int64, without blanks.
        score: log-probability of the ids, as far as the search saw it, with the bonus of their length.
    """

    ids: Tensor
    score: float


def padded_steps(values: Float[Tensor, "n i"], sequence: Int[Tensor, " n"], count: int) -> tuple[Float[Tensor, "b t i"], Int[Tensor, " b"]]:
    """Lay steps that lie end to end side by side, and return the number of steps of each sequence.

    Args:
        values: of all steps, those of a sequence together and in order.
        sequence: the number of the sequence of each step, ascending.
        count: number of sequences; some may have no steps.
    """
    lengths = torch.bincount(sequence, minlength=count)
    place = torch.arange(len(sequence), device=sequence.device) - (lengths.cumsum(0) - lengths)[sequence]
    filled = values.new_zeros(count, int(lengths.max()) if count else 0, values.shape[1])
    return filled.index_put((sequence, place), values), lengths


def greedy(log_probabilities: Float[Tensor, "b t i"], lengths: Int[Tensor, " b"]) -> list[Tensor]:
    """Return the ids of the likeliest alignment of each sequence: the best of each step, once where it repeats, without blanks.

    Args:
        log_probabilities: or logits.
        lengths: steps of each sequence.
    """
    count, longest, ids = log_probabilities.shape
    best = log_probabilities.argmax(-1)
    before = torch.cat([best.new_full((count, 1), NOBODY), best[:, :-1]], 1)[:, :longest]
    there = torch.arange(longest, device=best.device) < lengths[:, None]
    kept = there & (best != before) & (best != ids - 1)
    return list(best[kept].split(kept.sum(1).tolist()))


@torch.no_grad()
def beam_search(
    log_probabilities: Float[Tensor, "b t i"], lengths: Int[Tensor, " b"], beam_size: int, length_bonus: float = 0.0
) -> list[list[Hypothesis]]:
    """Return the likeliest ids of each sequence, the best first: the alignments of the same ids count together.

    Prefix beam search (https://arxiv.org/abs/1408.2873) without a language model, for all sequences at once. It is exact where no more
    than ``beam_size`` prefixes are possible. It runs in float64 on the CPU.

    Args:
        log_probabilities: of each step; not logits.
        lengths: steps of each sequence.
        beam_size: prefixes that are kept after each step, at least 1.
        length_bonus: added to the score for each id; above 0 it lengthens results.

    Raises:
        ValueError: ``beam_size`` below 1.
    """
    if beam_size < 1:
        raise ValueError(f"beam_size must be at least 1, got {beam_size}.")
    beams = _Beams(len(lengths), beam_size, log_probabilities.shape[2] - 1, length_bonus)
    steps, lengths = log_probabilities.detach().double().cpu(), lengths.cpu()
    for number in range(int(lengths.max()) if len(lengths) else 0):
        beams.advance(steps[:, number], number < lengths)
    return beams.hypotheses()


class _Beams:
    """The prefixes kept of each sequence. Equal prefixes have one number, given by the prefix before the last id and that id.

    Args:
        count: number of sequences.
        size: prefixes kept of each.
        num_ids: without the blank.
        bonus: for each id of a prefix.
    """

    def __init__(self, count: int, size: int, num_ids: int, bonus: float) -> None:
        self.num_ids, self.bonus = num_ids, bonus
        self.known: dict[tuple[int, int], int] = {}
        self.origin: list[tuple[int, int]] = [(NO_PARENT, NOBODY)] * count  # number -> (number of the parent, last id)
        nothing = torch.full((count, size), -torch.inf, dtype=torch.float64)
        self.blank, self.other = nothing.clone(), nothing.clone()  # alignments that end in a blank, and in the last id
        self.number, self.parent, self.last, self.length = (torch.full((count, size), value) for value in (NOBODY, NO_PARENT, 0, 0))
        self.blank[:, 0], self.number[:, 0] = 0.0, torch.arange(count)

    def advance(self, step: Float[Tensor, "b i"], active: Tensor) -> None:
        """Read one step of the sequences that are not over (``active``: ``(b,)`` bool)."""
        ids, total = step[:, : self.num_ids], torch.logaddexp(self.blank, self.other)
        blank, other = total + step[:, self.num_ids :], self.other + ids.gather(1, self.last)
        longer = total[..., None] + ids[:, None]  # b k v
        repeated = self.blank + ids.gather(1, self.last)  # the same id again is another one only after a blank
        longer.scatter_(
            2, self.last[..., None], torch.where(self.length > 0, repeated, longer.gather(2, self.last[..., None])[..., 0])[..., None]
        )
        other = self._merged(longer, other)
        self._keep(blank, other, longer, active)

    def _merged(self, longer: Tensor, other: Tensor) -> Tensor:
        """Move what makes a prefix that is kept already of another one to the former; ``longer`` is changed."""
        sequence, parent, child = (self.number[:, :, None] == self.parent[:, None, :]).nonzero(as_tuple=True)
        last = self.last[sequence, child]
        moved = torch.logaddexp(other[sequence, child], longer[sequence, parent, last])
        longer[sequence, parent, last] = -torch.inf
        return other.index_put((sequence, child), moved)

    def _keep(self, blank: Tensor, other: Tensor, longer: Tensor, active: Tensor) -> None:
        """Keep the best of the prefixes as they are and of those longer by an id."""
        size = self.number.shape[1]
        bonus = self.bonus * self.length.double()  # of whole numbers alone, torch would make float32
        scores = torch.cat([torch.logaddexp(blank, other) + bonus, (longer + (bonus + self.bonus)[..., None]).flatten(1)], 1)
        best, chosen = scores.topk(size, 1)
        stays = chosen < size
        source = torch.where(stays, chosen, (chosen - size).div(self.num_ids, rounding_mode="floor"))
        added = (chosen - size) % self.num_ids
        grown = longer.flatten(1).gather(1, (chosen - size).clamp(min=0))
        impossible = best == -torch.inf
        chosen_last = torch.where(stays, self.last.gather(1, source), added)
        number, parent = self.number.gather(1, source), self.parent.gather(1, source)
        parent = torch.where(stays, parent, number)
        for i, j in (active[:, None] & ~stays & ~impossible).nonzero().tolist():
            number[i, j] = self._number_of(int(parent[i, j]), int(chosen_last[i, j]))
        new = {
            "blank": blank.gather(1, source).masked_fill(~stays | impossible, -torch.inf),
            "other": torch.where(stays, other.gather(1, source), grown).masked_fill(impossible, -torch.inf),
            "number": number.masked_fill(impossible, NOBODY),
            "parent": parent.masked_fill(impossible, NO_PARENT),
            "last": chosen_last,
            "length": self.length.gather(1, source) + ~stays,
        }
        for name, value in new.items():
            setattr(self, name, torch.where(active[:, None], value, getattr(self, name)))

    def _number_of(self, parent: int, last: int) -> int:
        """Return the number of a prefix, a new one where it was not seen before."""
        if (parent, last) not in self.known:
            self.known[parent, last] = len(self.origin)
            self.origin.append((parent, last))
        return self.known[parent, last]

    def hypotheses(self) -> list[list[Hypothesis]]:
        """Return the prefixes of each sequence, the best first."""
        scores = torch.logaddexp(self.blank, self.other) + self.bonus * self.length.double()
        order = scores.argsort(dim=1, descending=True, stable=True)
        rows = zip(self.number.gather(1, order).tolist(), scores.gather(1, order).tolist(), strict=True)
        return [[Hypothesis(self._ids(number), score) for number, score in zip(*row, strict=True) if number != NOBODY] for row in rows]

    def _ids(self, number: int) -> Tensor:
        ids = []
        while (parent := self.origin[number][0]) != NO_PARENT:
            ids.append(self.origin[number][1])
            number = parent
        return torch.tensor(ids[::-1], dtype=torch.int64)
