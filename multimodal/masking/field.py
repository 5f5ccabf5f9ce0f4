"""Hide single fields of tokens that have several.

Letters in shapes: n tokens, k fields, c chosen ones of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.masking.groups import group_of
from multimodal.masking.noise import uniform
from multimodal.protocols import Masking, Tokens

Draw = Literal["all", "one", "some"]
FIELDS, NUMBER = 31, 32
"""Streams of the noise of a masking of fields."""


class FieldMasking(Masking):
    """Hide some fields of the tokens that another masking hides, and show the others: the pitch of a note given its place and length.

    What is hidden of a token is all of ``fields``; or one of them, each as likely; or some: how many is drawn first, from one to all, each
    as likely, and then which. A model that is trained with "some" learns to fill in any fields given any others.

    ``per`` says for what the draw is made: for each "token"; for each "item"; or for each group of that name, such as "bar". With
    ``GroupMasking("bar")``, ``draw: one`` and ``per: bar`` one field is hidden in the whole bar: the bar-level masking of MusicBERT
    (https://arxiv.org/abs/2106.05630), whose elements of one kind in one bar are hidden together.

    Args:
        masking: which tokens; it hides whole ones.
        fields: names of the fields that may be hidden; None: all.
        draw: "all" of these, "one" or "some".
        per: "token", "item" or the name of a group.

    Raises:
        ValueError: no fields, one named twice, a masking that mixes items or learns, an unknown ``draw``; when called, a name that no field
            has, tokens of a single field, a masking that hides single fields itself, or no such group.
    """

    def __init__(self, masking: Masking, fields: Sequence[str] | None = None, draw: Draw = "all", per: str = "token") -> None:
        if fields is not None and (not fields or len(set(fields)) < len(fields)):
            raise ValueError(f"fields must be different names, at least one, got {list(fields)}; leave it out for all.")
        if draw not in get_args(Draw):
            raise ValueError(f"draw must be one of {', '.join(get_args(Draw))}, got {draw!r}.")
        if masking.num_mixed > 1 or masking.learns:
            reason = "mixes items: single fields cannot be hidden with it" if masking.num_mixed > 1 else "learns: set fields of its own"
            raise ValueError(f"{type(masking).__name__} {reason}.")
        self.masking, self.fields, self.draw, self.per = masking, fields, draw, per

    def __call__(self, tokens: Tokens, seed: Int[Tensor, " items"]) -> Bool[Tensor, "n k"]:
        """Return True at the fields that are hidden."""
        allowed = numbers_of_fields(tokens, self.fields, "FieldMasking")
        masked = self.masking(tokens, seed)
        if masked.ndim > 1:
            raise ValueError(f"{type(self.masking).__name__} hides single fields already: wrap a masking that hides whole tokens.")
        hidden = torch.zeros(len(masked), len(tokens.fields), dtype=torch.bool, device=masked.device)
        hidden[:, allowed] = masked[:, None] & self._drawn(tokens, seed, len(allowed))
        return hidden

    def _drawn(self, tokens: Tokens, seed: Int[Tensor, " items"], count: int) -> Bool[Tensor, "n c"]:
        """Return, of each token, which of so many fields are hidden if it is."""
        item, owner = tokens.item, self._owners(tokens)
        if self.draw == "all" or count == 1:
            return torch.ones(len(item), count, dtype=torch.bool, device=item.device)
        number = torch.arange(count, device=item.device)
        noise = uniform(seed[item, None].expand(-1, count), owner[:, None] * count + number, FIELDS)
        few = torch.ones_like(item) if self.draw == "one" else (uniform(seed[item], owner, NUMBER) * count).long() + 1
        return noise.argsort(1).argsort(1) < few[:, None]

    def _owners(self, tokens: Tokens) -> Int[Tensor, " n"]:
        """Return for each token the number, within its item, of what its draw is made for."""
        if self.per == "token":
            return tokens.position
        return torch.zeros_like(tokens.item) if self.per == "item" else group_of(tokens, self.per, "FieldMasking")


def numbers_of_fields(tokens: Tokens, names: Sequence[str] | None, masking: str) -> list[int]:
    """Return the numbers of the fields that may be hidden; ``names``: None: all.

    Raises:
        ValueError: the tokens have a single field or none, or none of a name; ``masking`` is who asks.
    """
    if len(tokens.fields) < 2:
        found = f"the single field {tokens.fields[0]!r}" if tokens.fields else "no fields of ids"
        raise ValueError(f"{masking} hides single fields of tokens that have several; these have {found}: hide whole tokens.")
    wanted = tokens.fields if names is None else names
    if unknown := [name for name in wanted if name not in tokens.fields]:
        raise ValueError(f"no field is called {unknown[0]!r}: these tokens have {', '.join(tokens.fields)}.")
    return [tokens.fields.index(name) for name in wanted]
