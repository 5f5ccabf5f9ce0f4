"""Long texts -> windows that overlap, each word told by one of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple


class Window(NamedTuple):
    """Words that are read together.

    Args:
        first: number of the first word.
        last: number of the word after its last.
        own_first: number of the first word that this window tells, and no other.
        own_last: number of the word after the last such.
    """

    first: int
    last: int
    own_first: int
    own_last: int


def cut_windows(lengths: Sequence[int], room: int, overlap: int) -> list[Window]:
    """Return as few windows as reach over all words from left to right; words in two windows are told by the one with more around them.

    Args:
        lengths: tokens of each word, from 1 to ``room``.
        room: tokens of a window, at most.
        overlap: tokens that a window shares with the one before it, at most; below ``room``.

    Returns:
        At least one window; of no words an empty one.
    """
    spans = [(0, _reach(lengths, 0, room))]
    while spans[-1][1] < len(lengths):
        before, last = spans[-1]
        first, shared = last, 0
        while first - 1 > before and shared + lengths[first - 1] <= overlap:
            first -= 1
            shared += lengths[first]
        while shared + lengths[last] > room:  # the next word is long: something new must fit
            shared -= lengths[first]
            first += 1
        spans.append((first, _reach(lengths, first, room)))
    borders = [0, *((later[0] + earlier[1] + 1) // 2 for earlier, later in pairwise(spans)), len(lengths)]
    return [Window(*span, *border) for span, border in zip(spans, pairwise(borders), strict=True)]


def _reach(lengths: Sequence[int], first: int, room: int) -> int:
    """Return the number of the first word that no longer fits in a window from ``first``."""
    last, used = first, 0
    while last < len(lengths) and used + lengths[last] <= room:
        used += lengths[last]
        last += 1
    return last


def check_sizes(max_tokens: int, overlap: int, around: int) -> None:
    """Look at the sizes of windows.

    Args:
        max_tokens: of a window, with what is put around and before its words.
        overlap: tokens that two windows share.
        around: tokens that are put around and before the words.

    Raises:
        ValueError: there is no room, or no more than the overlap.
    """
    if max_tokens <= around:
        raise ValueError(f"max_tokens must be above {around}, which are not words of the text, got {max_tokens}.")
    if not 0 <= overlap < max_tokens - around:
        raise ValueError(f"overlap must be in [0, {max_tokens - around}), as windows have that many tokens of the text, got {overlap}.")
