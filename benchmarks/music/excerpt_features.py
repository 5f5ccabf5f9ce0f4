"""What is counted in an excerpt, for models that know no sequences.

Nothing depends on where bars lie. Letters in shapes: x excerpts, n notes, f features, p periods, c cells of a grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

START, PITCH, DURATION = range(3)
LENGTHS = np.array([40, 60, 80, 120, 160, 180, 240, 320, 360, 480, 720, 960, 1440])
"""Ticks of the durations that are told apart, 480 to a beat."""
RATIOS = np.array([1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 1, 4 / 3, 3 / 2, 2, 3, 4, 6])
CLASS_EDGES = np.array([0.75, 1.25, 1.75])
"""Between short, usual, dotted and long notes, in units of the most frequent length."""
PERIODS = np.array([1.5, 2, 3, 4, 6, 8, 9, 12, 16])
"""In units of the most frequent length."""
LAGS, CELLS = 24, 128
"""Of the grid, whose cells are half the most frequent length."""


def dance_features(notes: np.ndarray) -> np.ndarray:
    """Return ``(x, f)`` features of excerpts: lengths, their order, periods, intervals, pitches.

    Args:
        notes: ``(x, n, 3)`` start, pitch and duration of one melody each.
    """
    start, pitch = notes[..., START].astype(float), notes[..., PITCH].astype(float)
    gap = np.diff(start, axis=1).clip(min=1)  # from each note to the next
    lengths = shares(_nearest(gap, LENGTHS), len(LENGTHS))
    unit = LENGTHS[lengths.argmax(1)][:, None]
    relative, interval = gap / unit, np.diff(pitch, axis=1)
    kinds = np.digitize(relative, CLASS_EDGES)
    columns = [
        lengths,
        shares(_nearest(relative, RATIOS), len(RATIOS)),
        shares(_nearest(gap[:, 1:] / gap[:, :-1], RATIOS), len(RATIOS)),
        patterns(kinds, 4, 2),
        patterns(kinds, 4, 3),
        *interval_shares(interval),
        pitch_shares(notes[..., PITCH]),
        np.log2(unit),
        (start[:, -1:] - start[:, :1]) / unit,
        pitch.mean(1, keepdims=True),
        pitch.std(1, keepdims=True),
        np.ptp(pitch, axis=1, keepdims=True),
        *(periodicity(start[:, :-1] / unit, weight) for weight in (np.ones_like(gap), relative, np.abs(interval))),
        *lagged(start / unit, pitch),
    ]
    return np.concatenate(columns, axis=1)


def composer_features(notes: np.ndarray) -> np.ndarray:
    """Return ``(x, f)`` features of excerpts of any number of voices: lengths, chords, intervals, pitches.

    Args:
        notes: ``(x, n, 3)`` start, pitch and duration, sorted by start and pitch.
    """
    start, pitch, length = (notes[..., column] for column in (START, PITCH, DURATION))
    gap = np.diff(start, axis=1)
    lengths = shares(_nearest(length.clip(min=1), LENGTHS), len(LENGTHS))
    steps = shares(np.where(gap > 0, 1 + _nearest(gap.clip(min=1), LENGTHS), 0), len(LENGTHS) + 1)
    overlap = (start[:, :, None] <= start[:, None]) & (
        start[:, None] < (start + length)[:, :, None]
    )  # the first sounds when the second begins
    voices = overlap.sum(1)
    return np.concatenate(
        [
            lengths,
            steps,
            shares(voices.clip(max=7), 8),
            *interval_shares(np.diff(pitch, axis=1)),
            pitch_shares(pitch),
            pitch.mean(1, keepdims=True),
            pitch.std(1, keepdims=True),
            np.ptp(pitch, axis=1, keepdims=True),
        ],
        axis=1,
    )


def shares(ids: np.ndarray, size: int) -> np.ndarray:
    """Return ``(x, size)``, which share of the ids ``(x, n)`` is each."""
    rows = np.repeat(np.arange(len(ids)), ids.shape[1])
    counts = np.bincount(rows * size + ids.ravel(), minlength=len(ids) * size)
    return counts.reshape(len(ids), size) / max(1, ids.shape[1])


def patterns(ids: np.ndarray, size: int, length: int) -> np.ndarray:
    """Return ``(x, size ** length)`` shares of the runs of ids ``(x, n)``, each id below ``size``."""
    runs = sliding_window_view(ids, length, axis=1) @ size ** np.arange(length)
    return shares(runs, size**length)


def interval_shares(interval: np.ndarray) -> Sequence[np.ndarray]:
    """Return shares of the intervals ``(x, n)`` up to an octave, of their sizes, and of runs of three directions."""
    clipped = interval.clip(-13, 13).astype(int)
    size = np.digitize(np.abs(interval), [0.5, 2.5, 4.5, 5.5, 7.5])
    return shares(clipped + 13, 27), patterns(size, 6, 2), patterns(np.sign(clipped) + 1, 3, 3)


def pitch_shares(pitch: np.ndarray) -> np.ndarray:
    """Return ``(x, 12)`` shares of the pitch classes, the most frequent first and the others above it."""
    found = shares(pitch.astype(int) % 12, 12)
    order = (found.argmax(1)[:, None] + np.arange(12)) % 12
    return np.take_along_axis(found, order, axis=1)


def periodicity(start: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return ``(x, p)`` in [0, 1], how much of the weight of notes falls on one place of each period, wherever it is.

    Args:
        start: ``(x, n)`` in units.
        weight: ``(x, n)``, not negative.
    """
    turns = np.exp(2j * np.pi * start[..., None] / PERIODS)
    return np.abs((weight[..., None] * turns).sum(1)) / weight.sum(1)[:, None].clip(min=1e-9)


def lagged(start: np.ndarray, pitch: np.ndarray) -> Sequence[np.ndarray]:
    """Return ``(x, LAGS)`` each, for every distance in time: how often a note begins there too, the same pitch sounds, and how far it is.

    Args:
        start: ``(x, n)`` in units, ascending.
        pitch: ``(x, n)``.
    """
    cell = np.rint(2 * (start - start[:, :1])).astype(int)
    rows = np.arange(len(start))[:, None]
    begins = np.zeros((len(start), CELLS))
    inside = cell < CELLS
    begins[np.broadcast_to(rows, cell.shape)[inside], cell[inside]] = 1
    sounding = (cell[:, None] <= np.arange(CELLS)[:, None]).sum(-1) - 1
    last = cell[:, -1:].clip(max=CELLS - 1)
    valid = np.arange(CELLS) <= last
    heard = np.take_along_axis(pitch, sounding, axis=1)
    found: list[list[np.ndarray]] = [[], [], []]
    for lag in range(1, LAGS + 1):
        both = valid[:, lag:]
        count = both.sum(1).clip(min=1)
        apart = np.abs(heard[:, lag:] - heard[:, :-lag])
        found[0].append((begins[:, lag:] * begins[:, :-lag] * both).sum(1) / begins.sum(1))
        found[1].append(((apart == 0) & both).sum(1) / count)
        found[2].append((apart * both).sum(1) / count)
    return [np.stack(columns, axis=1) for columns in found]


def _nearest(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the number of the nearest place, by ratio."""
    return np.abs(np.log(values)[..., None] - np.log(places)).argmin(-1)
