"""Hide what is named, not what is drawn: these bars, this voice, this range of pitches.

Letters in shapes: n tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.masking.groups import group_of
from multimodal.protocols import Masking, Tokens


class ChosenGroupMasking(Masking):
    """Hide the groups of tokens with these numbers in every item: bars 4 to 7, the second track, every other bar.

    Marks and tokens of no group stay; an item without such groups hides nothing.

    Args:
        group: the kind of groups, as the tokenizer names it: "bar", "track".
        numbers: of the groups to hide, from 0; None: as ``first``, ``last`` and ``every`` say.
        first: number of the first group to hide.
        last: number of the last; None: the last there is.
        every: every so many groups from the first on, one is hidden.

    Raises:
        ValueError: numbers that are negative or none, or beside a range; a range that ends before it begins; when called, the tokenizer
            tells no such groups.
    """

    def __init__(self, group: str, numbers: Sequence[int] | None = None, first: int = 0, last: int | None = None, every: int = 1) -> None:
        if numbers is not None and (first, last, every) != (0, None, 1):
            raise ValueError("give either numbers, or first, last and every.")
        if numbers is not None and (not numbers or min(numbers) < 0):
            raise ValueError(f"numbers must be at least one, from 0 on, got {list(numbers)}.")
        if first < 0 or every < 1 or (last is not None and last < first):
            raise ValueError(f"first must be at least 0, last not before it and every at least 1, got {first}, {last} and {every}.")
        self.group, self.numbers = group, None if numbers is None else list(numbers)
        self.first, self.last, self.every = first, last, every

    def __call__(self, tokens: Tokens, seed: Int[Tensor, " items"]) -> Bool[Tensor, " n"]:
        """Return True where a token is hidden, whatever the seed."""
        number = group_of(tokens, self.group, type(self).__name__)
        if self.numbers is not None:
            chosen = torch.isin(number, number.new_tensor(self.numbers))
        else:
            chosen = (number >= self.first) & ((number - self.first) % self.every == 0)
            chosen = chosen if self.last is None else chosen & (number <= self.last)
        return chosen if tokens.marks is None else chosen & ~tokens.marks


class IdRangeMasking(Masking):
    """Hide the tokens of which one id lies in a range: notes of these pitches, of this program.

    Args:
        field: name of the field.
        lowest: id from which on.
        highest: id up to which, included.

    Raises:
        ValueError: a range that is not ascending from 0; when called, a field that the tokens do not have, or tokens that are no ids.
    """

    def __init__(self, field: str, lowest: int, highest: int) -> None:
        if not 0 <= lowest <= highest:
            raise ValueError(f"lowest and highest must be ascending from 0, got {lowest} and {highest}.")
        self.field, self.lowest, self.highest = field, lowest, highest

    def __call__(self, tokens: Tokens, seed: Int[Tensor, " items"]) -> Bool[Tensor, " n"]:
        """Return True where a token is hidden, whatever the seed."""
        if self.field not in tokens.fields:
            raise ValueError(f"no field is called {self.field!r}: these tokens have {', '.join(tokens.fields) or 'no fields of ids'}.")
        ids = tokens.inputs.view(len(tokens.inputs), -1)
        if ids.shape[1] != len(tokens.fields):
            raise ValueError(
                f"IdRangeMasking reads ids, which are not what the encoder is given: {tuple(tokens.inputs.shape[1:])} a token."
            )
        ids = ids[:, tokens.fields.index(self.field)]
        chosen = (ids >= self.lowest) & (ids <= self.highest)
        return chosen if tokens.marks is None else chosen & ~tokens.marks
