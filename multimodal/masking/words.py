"""The words that tokens are parts of.

Letters in shapes: n tokens, w words of all items end to end.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from multimodal.protocols import Tokens


class Words(NamedTuple):
    """The words of all items of a batch.

    Args:
        of_token: ``(n,)`` int64, the number of the word of each token.
        item: ``(w,)`` int64, the item that each word belongs to.
        first: ``(w,)`` int64, the position of its first token within its item.
        size: ``(w,)`` int64, its tokens that may be hidden: 0 for marks, which are words of their own.
    """

    of_token: Tensor
    item: Tensor
    first: Tensor
    size: Tensor

    def within(self, sizes: Tensor) -> Tensor:
        """Return ``(w,)``, the sum of ``sizes`` (``(w,)`` int64, one number for each word) from the first word of the item to each."""
        total = sizes.cumsum(0)
        before = torch.zeros_like(self.item).index_add_(0, self.item, sizes).cumsum(0)  # up to the end of item i, at place i
        return total - torch.where(self.item > 0, before[self.item - 1], 0)

    def tokens(self, hidden: Tensor, marks: Tensor | None) -> Tensor:
        """Return ``(n,)`` bool, True at the tokens of the words that are hidden (``(w,)`` bool), but for marks."""
        masked = hidden[self.of_token]
        return masked if marks is None else masked & ~marks


def words_of(tokens: Tokens) -> Words:
    """Return the words of tokens; where nothing says where words begin, each token is one."""
    position, marks = tokens.position, tokens.marks
    begun = torch.ones_like(position, dtype=torch.bool) if tokens.begins is None else tokens.begins | (position == 0)
    if marks is not None:
        begun = begun | marks
        begun[1:] |= marks[:-1]
    of_token, item, first = begun.cumsum(0) - 1, tokens.item[begun], position[begun]
    free = torch.ones_like(position) if marks is None else (~marks).to(position.dtype)
    return Words(of_token, item, first, torch.zeros_like(first).index_add_(0, of_token, free))
