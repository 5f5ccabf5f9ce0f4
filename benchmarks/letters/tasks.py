"""What is told, from what: across packages, and inside one, where one voice is on both sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.letters.data import LANGUAGES, LEARNED, LETTERS, TOLD, Letter

TEST_SHARE = 0.25
"""Of the recordings, inside one package."""


class Task(NamedTuple):
    """A classification.

    Args:
        classes: names.
        of: the class of a recording.
        spoken_in: languages of the recordings to learn from; None: all.
        across: whether to tell the recordings of the other package; False: a quarter of the same, drawn at random.
    """

    classes: Sequence[str]
    of: Callable[[Letter], str]
    spoken_in: Sequence[str] | None
    across: bool


def _letter(recording: Letter) -> str:
    return recording.letter


def _language(recording: Letter) -> str:
    return recording.language


TASKS = {
    "letter": Task(LETTERS, _letter, LANGUAGES, True),
    "letter, all languages": Task(LETTERS, _letter, None, True),
    "letter, one package": Task(LETTERS, _letter, None, False),
    "language": Task(LANGUAGES, _language, LANGUAGES, True),
    "language, one package": Task(LANGUAGES, _language, LANGUAGES, False),
}
"""By name; those of one package are a warning."""


def labels(task: Task, known: Sequence[Letter]) -> np.ndarray:
    """Return ``(n,)`` int64, numbers of the classes; -1: of none of them, which is never used."""
    numbers = {name: number for number, name in enumerate(task.classes)}
    return np.array([numbers.get(task.of(recording), -1) for recording in known])


def split(task: Task, known: Sequence[Letter], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the recordings to learn from, and of those to tell; ``seed``: of the draw, if there is one."""
    own = np.array([x.package == LEARNED and (task.spoken_in is None or x.language in task.spoken_in) for x in known])
    if task.across:
        return np.flatnonzero(own), np.flatnonzero([x.package == TOLD for x in known])
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(own))
    count = round(TEST_SHARE * len(drawn))
    return np.sort(drawn[count:]), np.sort(drawn[:count])
