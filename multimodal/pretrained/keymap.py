"""Names of tensors here <-> names of tensors there, with every tensor accounted for.

A map is a list of entries; each says which of our tensors are made from which of theirs, and back. The same map imports and exports, so a
round trip is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch import Tensor

Convert = Callable[[list[Tensor]], list[Tensor]]
SHOWN = 8


@dataclass(frozen=True)
class Entry:
    """Some of our tensors, and the ones of theirs that hold the same numbers.

    Args:
        ours: names here.
        theirs: names there.
        to_ours: makes ours of theirs.
        to_theirs: makes theirs of ours.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    to_ours: Convert
    to_theirs: Convert


@dataclass(frozen=True)
class KeyMap:
    """How the tensors of a foreign layout become ours, and ours theirs.

    Args:
        entries: each tensor of ours and of theirs is in one at most.
        ignored: pattern (``*`` and ``?``) of their names -> why such a tensor is not needed.
        kept: our names that they have no tensor for -> why the first values stay.
    """

    entries: Sequence[Entry]
    ignored: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)

    def to_ours(self, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return our tensors.

        Raises:
            ValueError: a tensor of theirs is missing, or one has a shape that cannot be what the map takes it for.
        """
        missing = [name for entry in self.entries for name in entry.theirs if name not in theirs]
        if missing:
            raise ValueError(f"{len(missing)} tensors are missing: {_some(missing)}.")
        return {name: x for entry in self.entries for name, x in _convert(entry.theirs, entry.ours, entry.to_ours, theirs)}

    def to_theirs(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return their tensors, made of ours."""
        return {name: x for entry in self.entries for name, x in _convert(entry.ours, entry.theirs, entry.to_theirs, ours)}

    def unused(self, theirs: Mapping[str, Tensor]) -> list[str]:
        """Return their names that no entry uses."""
        used = {name for entry in self.entries for name in entry.theirs}
        return [name for name in theirs if name not in used]

    def reason(self, name: str) -> str | None:
        """Return why a tensor of theirs is not needed; None: nothing says so."""
        return next((why for pattern, why in self.ignored.items() if fnmatchcase(name, pattern)), None)

    def with_prefix(self, ours: str = "", theirs: str = "") -> KeyMap:
        """Return the map for names that begin with a prefix."""
        entries = [
            Entry(tuple(ours + x for x in e.ours), tuple(theirs + x for x in e.theirs), e.to_ours, e.to_theirs) for e in self.entries
        ]
        return KeyMap(entries, {theirs + k: v for k, v in self.ignored.items()}, {ours + k: v for k, v in self.kept.items()})

    def __add__(self, other: KeyMap) -> KeyMap:
        return KeyMap([*self.entries, *other.entries], {**self.ignored, **other.ignored}, {**self.kept, **other.kept})


def same(ours: str, theirs: str) -> Entry:
    """Return an entry for a tensor that only its name changes."""
    return Entry((ours,), (theirs,), list, list)


def pair(ours: str, theirs: str, bias: bool = True) -> list[Entry]:
    """Return the entries of the weight and the bias of a layer."""
    return [same(f"{ours}.{leaf}", f"{theirs}.{leaf}") for leaf in (("weight", "bias") if bias else ("weight",))]


def shaped(ours: str, theirs: str, our_shape: Sequence[int], their_shape: Sequence[int]) -> Entry:
    """Return an entry for a tensor whose numbers stand in the same order in another shape."""
    return Entry((ours,), (theirs,), lambda x: [x[0].reshape(*our_shape)], lambda x: [x[0].reshape(*their_shape)])


def joined(ours: str, theirs: Sequence[str]) -> Entry:
    """Return an entry for several tensors of theirs that lie end to end in one of ours: query, key and value."""
    return Entry((ours,), tuple(theirs), lambda x: [torch.cat(x)], lambda x: list(x[0].chunk(len(theirs))))


def stacked(ours: str, theirs: Sequence[str]) -> Entry:
    """Return an entry for several tensors of theirs that are the rows of one of ours."""
    return Entry((ours,), tuple(theirs), lambda x: [torch.stack(x)], lambda x: list(x[0].unbind()))


def split(ours: Sequence[str], theirs: str, sizes: Sequence[int], dim: int = 0) -> Entry:
    """Return an entry for several tensors of ours that lie end to end in one of theirs."""
    return Entry(tuple(ours), (theirs,), lambda x: list(x[0].split(list(sizes), dim)), lambda x: [torch.cat(x, dim)])


def equal_copies(ours: str, theirs: Sequence[str]) -> Entry:
    """Return an entry for a tensor that they store several times.

    Raises:
        ValueError: (when used) the copies differ.
    """

    def first(copies: list[Tensor]) -> list[Tensor]:
        for name, copy in zip(theirs, copies, strict=True):
            if not torch.equal(copy, copies[0]):
                raise ValueError(f"{name} differs from {theirs[0]}; they are copies of one tensor in this family.")
        return [copies[0]]

    return Entry((ours,), tuple(theirs), first, lambda x: [x[0].clone() for _ in theirs])


def _convert(sources: tuple[str, ...], results: tuple[str, ...], convert: Convert, state: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    try:
        made = convert([state[name] for name in sources])
    except RuntimeError as error:
        shapes = {name: tuple(state[name].shape) for name in sources}
        raise ValueError(f"tensors {shapes} do not fit {list(results)}: {str(error).splitlines()[0]}") from error
    return list(zip(results, made, strict=True))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
