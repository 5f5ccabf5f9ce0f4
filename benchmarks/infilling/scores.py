"""How well notes of a voice fit a piece.

Letters in shapes: n notes, v voices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from benchmarks.infilling.keys import Key
from multimodal.tokenizers.midi import Column

DISSONANT = (1, 2, 6, 10, 11)
"""Intervals in semitones, octaves taken away: seconds, sevenths, the tritone."""
USUAL = (1, 99)
"""Percentiles of a voice's pitches between which its range lies."""


@dataclass(frozen=True)
class Voices:
    """What the voices of the pieces that are learned from are like.

    Args:
        low: ``(v,)`` int64, the lowest usual pitch of each.
        high: ``(v,)`` int64, the highest.
        commonest: ``(v,)`` int64, the most frequent pitch of each.
    """

    low: Int[np.ndarray, " v"]
    high: Int[np.ndarray, " v"]
    commonest: Int[np.ndarray, " v"]

    @classmethod
    def of(cls, pieces: Iterable[Int[np.ndarray, "n 6"]], count: int = 4) -> Voices:
        """Return those of pieces, each a table of notes (``Column``)."""
        notes = np.concatenate(list(pieces))
        own = [notes[notes[:, Column.TRACK] == voice, Column.PITCH] for voice in range(count)]
        low, high = (np.array([np.percentile(pitch, end, method="nearest") for pitch in own]) for end in USUAL)
        return cls(low, high, np.array([np.bincount(pitch).argmax() for pitch in own]))


@dataclass(frozen=True)
class Counts:
    """Sums over filled notes.

    Args:
        notes: how many there are.
        right: that have the true pitch.
        in_key: that are of the piece's scale.
        in_range: that lie in the usual range of their voice.
        pairs: of a filled note and a note of another voice that sounds when it begins.
        consonant: of these, intervals that are no second, seventh or tritone.
    """

    notes: int = 0
    right: int = 0
    in_key: int = 0
    in_range: int = 0
    pairs: int = 0
    consonant: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def shares(self) -> dict[str, float]:
        """Name -> share, in [0, 1]."""
        named = {"right": self.right, "in_key": self.in_key, "in_range": self.in_range}
        return {name: value / max(self.notes, 1) for name, value in named.items()} | {"consonant": self.consonant / max(self.pairs, 1)}


def count(true: Int[np.ndarray, "n 6"], guess: Int[np.ndarray, "n 6"], hidden: Bool[np.ndarray, " n"], key: Key, voices: Voices) -> Counts:
    """Return how the hidden notes were filled in.

    Args:
        true: the notes of a piece.
        guess: what was filled in, with the true notes where nothing was hidden.
        hidden: True at notes that were filled in.
        key: of the piece.
        voices: of other pieces.
    """
    pitch, voice = guess[hidden, Column.PITCH], guess[hidden, Column.TRACK]
    intervals = sounding_intervals(guess, hidden)
    return Counts(
        notes=int(hidden.sum()),
        right=int((pitch == true[hidden, Column.PITCH]).sum()),
        in_key=int(key.has(pitch).sum()),
        in_range=int(((pitch >= voices.low[voice]) & (pitch <= voices.high[voice])).sum()),
        pairs=len(intervals),
        consonant=int((~np.isin(intervals, DISSONANT)).sum()),
    )


def sounding_intervals(notes: Int[np.ndarray, "n 6"], chosen: Bool[np.ndarray, " n"]) -> Int[np.ndarray, " p"]:
    """Return the intervals, octaves taken away, of chosen notes to those of the other voices that sound when they begin.

    Args:
        notes: of a piece, in any order.
        chosen: True at notes.
    """
    found: list[np.ndarray] = []
    for voice in np.unique(notes[:, Column.TRACK]):
        own = notes[notes[:, Column.TRACK] == voice]
        own = own[own[:, Column.START].argsort(kind="stable")]
        others = notes[chosen & (notes[:, Column.TRACK] != voice)]
        place = np.searchsorted(own[:, Column.START], others[:, Column.START], side="right") - 1
        last = own[place.clip(min=0)]
        sounds = (place >= 0) & (last[:, Column.START] + last[:, Column.DURATION] > others[:, Column.START])
        found.append((others[sounds, Column.PITCH] - last[sounds, Column.PITCH]) % 12)
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def mean_and_spread(shares: Sequence[float]) -> tuple[float, float]:
    """Return the mean over seeds and the standard deviation, 0 for one."""
    return float(np.mean(shares)), float(np.std(shares, ddof=1)) if len(shares) > 1 else 0.0
