"""What is said of a move, in varied wording, and captions of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WAYS = ("east", "southeast", "south", "southwest", "west", "northwest", "north", "northeast")
"""What each of ``benchmarks.moving_digits.films.DIRECTIONS`` is called: one word each."""
WORDINGS = (
    "a {digit} goes {way}.",
    "now the {digit} drifts {way}.",
    "here comes a {digit} moving {way}.",
    "look, the {digit} is heading {way}.",
    "and {way} goes the {digit}.",
    "this time it is a {digit}, and it moves {way}.",
    "we see a {digit} on its way {way}.",
    "slowly the {digit} slides to the {way}.",
)
TEMPLATES = ("a [MASK] goes [MASK].", "now the [MASK] drifts [MASK].")
"""Wordings in which digit and way, in this order, are to be told."""


def sentence(digit: int, way: int, random: np.random.Generator) -> str:
    """Return what is said of a move: one of ``WORDINGS``, each as often.

    Args:
        digit: from 0 to 9.
        way: place in ``WAYS``.
        random: what is drawn from.
    """
    return WORDINGS[random.integers(len(WORDINGS))].format(digit=DIGITS[digit], way=WAYS[way])


def plain_sentence(digit: int, way: int) -> str:
    """Return the first of ``WORDINGS``, as in "a seven goes north."."""
    return WORDINGS[0].format(digit=DIGITS[digit], way=WAYS[way])


def subrip(sentences: Sequence[str], seconds: float) -> str:
    """Return captions in SubRip's format.

    Args:
        sentences: one after the other.
        seconds: that each lasts, above 0.
    """
    times = [_stamp(round(number * seconds * 1000)) for number in range(len(sentences) + 1)]
    cues = [f"{i + 1}\n{times[i]} --> {times[i + 1]}\n{said}\n" for i, said in enumerate(sentences)]
    return "\n".join(cues)


def _stamp(milliseconds: int) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02},{milliseconds:03}"
