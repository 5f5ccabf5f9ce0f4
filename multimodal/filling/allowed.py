"""Which ids may be filled in.

Letters in shapes: m tokens, v ids of one field.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.protocols import Tokenizer


class AllowedIds:
    """The ids of a tokenizer that may be filled in: none that says nothing itself, and for a hidden id only those of its kind.

    Args:
        tokenizer: says which ids there are, and of which kinds (``Tokenizer.kinds``).
        ranges: name of a field -> lowest and highest id that is filled in, both included. It binds the kinds of which it allows some id.

    Raises:
        ValueError: a field that the tokenizer does not have, or a range in which no id can be filled in.
    """

    def __init__(self, tokenizer: Tokenizer, ranges: Mapping[str, tuple[int, int]] | None = None) -> None:
        names = tokenizer.field_names
        ranges = ranges or {}
        if unknown := [name for name in ranges if name not in names]:
            raise ValueError(f"allowed names the field {unknown[0]!r}; the tokenizer has {', '.join(names)}.")
        self._kinds = [_restricted(name, kinds, ranges.get(name)) for name, kinds in zip(names, tokenizer.kinds(), strict=True)]

    def __call__(self, field: int, truth: Int[Tensor, " m"]) -> Bool[Tensor, "#m v"]:
        """Return True at the ids that may stand for each hidden one; one row for all where these are the same.

        Args:
            field: number of the field.
            truth: what was hidden, of which only the kind counts.
        """
        kinds, own = self._kinds[field]
        kinds = kinds.to(truth.device)
        if own.max() == 0:
            return (kinds >= 0)[None]
        wanted = own.to(truth.device)[truth]
        return torch.where((wanted >= 0)[:, None], kinds == wanted[:, None], kinds >= 0)


def _restricted(name: str, kinds: Tensor, bounds: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
    """Return the kinds of ids with -1 where they are not filled in, and all of them."""
    if bounds is None:
        return kinds, kinds
    place = torch.arange(len(kinds))
    inside = (place >= bounds[0]) & (place <= bounds[1]) & (kinds >= 0)
    if not inside.any():
        raise ValueError(f"allowed for field {name!r} is {bounds[0]} to {bounds[1]}, where it has no id; it has {_ends(kinds)}.")
    bound = torch.isin(kinds, kinds[inside])
    return torch.where(bound & ~inside, -1, kinds), kinds


def _ends(kinds: Tensor) -> str:
    there = (kinds >= 0).nonzero()[:, 0].tolist()
    return f"{there[0]} to {there[-1]}" if there else "none"
