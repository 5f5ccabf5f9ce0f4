"""The key of a piece, and which pitches are of it.

Letters in shapes: n notes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
"""How well each pitch class, from the tonic up, was judged to fit a key (Krumhansl and Kessler 1982)."""
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10, 11)}
"""Steps of the scale above the tonic; of minor the natural ones, and the raised seventh of the harmonic one."""


class Key(NamedTuple):
    """A key.

    Args:
        tonic: pitch class, 0 (C) to 11 (B).
        mode: "major" or "minor".
    """

    tonic: int
    mode: str

    def has(self, pitch: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Return True at pitches of its scale."""
        return np.isin((pitch - self.tonic) % 12, SCALES[self.mode])


def key_of(pitch: Int[np.ndarray, " n"], duration: Int[np.ndarray, " n"]) -> Key:
    """Return the key whose profile correlates best with how long each pitch class sounds (Krumhansl and Schmuckler).

    Args:
        pitch: of all notes of a piece, in semitones.
        duration: of each, in any unit.
    """
    sounding = np.bincount(pitch % 12, weights=duration, minlength=12)
    keys = [Key(tonic, mode) for mode in PROFILES for tonic in range(12)]
    return max(keys, key=lambda key: np.corrcoef(np.roll(PROFILES[key.mode], key.tonic), sounding)[0, 1])
