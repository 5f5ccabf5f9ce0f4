"""What needs no network: a forest on one picture, and what moves between pictures.

Letters in shapes: n films, f frames, s side.
"""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from benchmarks.moving_digits.films import STEPS, Look

TREES = 300
APART = 3
"""Pictures between two differences that are compared."""


def one_picture(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the guesses of a forest on the pixels of the middle picture alone; clips are ``(n, f, s, s)`` uint8."""
    return _forest(train[:, train.shape[1] // 2], labels, test[:, test.shape[1] // 2])


def changes(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the guesses of a forest on how much each pixel changes most from a picture to the next: clutter stays, and is gone."""
    made = [np.abs(np.diff(clips.astype(np.int16), axis=1)).max(1) for clips in (train, test)]
    return _forest(made[0], labels, made[1])


def moves(test: np.ndarray) -> np.ndarray:
    """Return the direction in which what changes is found again three pictures later; nothing is learned.

    The cross-correlation of differences of pictures is read at the eight places that the speed allows.
    """
    change = np.abs(np.diff(test.astype(np.float32), axis=1))
    size = 2 * change.shape[-1]
    before, after = (np.fft.rfft2(x, s=(size, size)) for x in (change[:, :-APART], change[:, APART:]))
    correlation = np.fft.irfft2(after * before.conj(), s=(size, size)).sum(1)
    way = round(APART * Look().speed)
    return np.stack([correlation[:, way * down, way * right] for down, right in STEPS], 1).argmax(1)


def _forest(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    forest = RandomForestClassifier(TREES, random_state=0, n_jobs=1)
    guesses: np.ndarray = forest.fit(train.reshape(len(train), -1), labels).predict(test.reshape(len(test), -1))
    return guesses
