"""Hide whole groups of tokens: bars, tracks.

Letters in shapes: n tokens, g groups of all items end to end.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.masking.marks import free_tokens
from multimodal.masking.noise import uniform
from multimodal.protocols import Masking, Tokens

GROUPS = 33
"""Stream of the noise of groups."""


def group_of(tokens: Tokens, name: str, asker: str) -> Int[Tensor, " n"]:
    """Return the number of the group of each token within its item; -1: of none.

    Args:
        tokens: of all items.
        name: of the kind of group.
        asker: who needs it, for the message.

    Raises:
        ValueError: there are no such groups; the message names those that there are.
    """
    found = tokens.groups()
    if name not in found:
        known = f"it tells {', '.join(map(repr, found))}" if found else "it tells no groups at all: use RandomMasking or SpanMasking"
        raise ValueError(f"{asker} needs groups called {name!r}, which this modality's tokenizer does not tell; {known}.")
    return found[name]


class GroupMasking(Masking):
    """Hide whole groups of tokens, drawn uniformly: bars or tracks, to be filled in (MIDI-GPT, https://arxiv.org/abs/2501.17011).

    The groups of an item are put in a random order, and the first of them are hidden: as many as bring the number of hidden tokens closest
    to ``mask_ratio`` of those that may be hidden. At least one is hidden, and never all, unless there is only one. Marks and tokens of no
    group stay; groups of marks alone do not count. An item whose tokens are all of no group hides nothing.

    Args:
        group: the kind of groups, as the tokenizer names it: "bar", "track", "pitch_class".
        mask_ratio: share of the tokens to hide, in (0, 1).

    Raises:
        ValueError: ``mask_ratio`` is outside its range; when called, the tokenizer tells no such groups.
    """

    def __init__(self, group: str = "bar", mask_ratio: float = 0.15) -> None:
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio must be in (0, 1), got {mask_ratio}.")
        self.group, self.mask_ratio = group, mask_ratio

    def __call__(self, tokens: Tokens, seed: Int[Tensor, " items"]) -> Bool[Tensor, " n"]:
        """Return True where a token is hidden."""
        number, item = group_of(tokens, self.group, "GroupMasking"), tokens.item
        free = number >= 0 if tokens.marks is None else (number >= 0) & ~tokens.marks
        masked = torch.zeros_like(free)
        numbers = int(number.max()) + 1 if len(number) else 1
        groups, of_token, size = (item * numbers + number)[free].unique(return_inverse=True, return_counts=True)
        masked[free] = self._drawn(groups // numbers, groups % numbers, size, free_tokens(tokens), seed)[of_token]
        return masked

    def _drawn(
        self,
        owner: Int[Tensor, " g"],
        number: Int[Tensor, " g"],
        size: Int[Tensor, " g"],
        free: Int[Tensor, " items"],
        seed: Int[Tensor, " items"],
    ) -> Bool[Tensor, " g"]:
        """Return which groups are hidden; they are given item by item."""
        order = (uniform(seed[owner], number, GROUPS).double() + owner).argsort(stable=True)  # by item, then by noise
        count = torch.zeros_like(free).index_add_(0, owner, torch.ones_like(owner))
        rank = torch.arange(len(owner), device=owner.device) - (count.cumsum(0) - count)[owner]
        sizes, total = size[order], torch.zeros_like(free).index_add_(0, owner, size)
        before = sizes.cumsum(0) - sizes - (total.cumsum(0) - total)[owner]  # tokens of the groups before it in its item
        closer = before + sizes / 2 <= free[owner] * self.mask_ratio
        hidden = torch.empty_like(order, dtype=torch.bool)
        hidden[order] = (rank == 0) | (closer & (rank < count[owner] - 1))
        return hidden
