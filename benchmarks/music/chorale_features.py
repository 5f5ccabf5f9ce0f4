"""What surrounds a note of a chorale, for models that know no sequences; the note's own pitch is not looked at.

Letters in shapes: n notes, f features, v voices.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from multimodal.tokenizers.midi.bars import bars_of
from multimodal.tokenizers.midi.score import TICKS_PER_BEAT, Column, Score

NUM_VOICES = 4
NEAR = 4
"""Notes before and after, in the same voice."""
REACHES = (1, 4, 10_000)
"""Beats on each side, for the pitches that are heard around a note."""
MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
"""How well each pitch class fits a key, from its tonic up (Krumhansl and Kessler, 1982)."""
LOWEST, HIGHEST = -16, 16
"""Of the intervals from a note's reference that are told apart."""


class Hidden(NamedTuple):
    """Notes whose pitch is to be told.

    Args:
        features: ``(n, f)``, nan where there is no such note; pitches are relative to the reference.
        reference: ``(n,)``, the pitch before in the same voice, or at the start of a piece the one after.
        pitch: ``(n,)``, the truth.
        context: ``(n, 3)``, voice and the intervals to the pitches before and after, for a table.
    """

    features: np.ndarray
    reference: np.ndarray
    pitch: np.ndarray
    context: np.ndarray

    @property
    def interval(self) -> np.ndarray:
        """From the reference to the pitch, within the range that is told apart."""
        return (self.pitch - self.reference).clip(LOWEST, HIGHEST)


def hidden_pitches(score: Score) -> Hidden:
    """Return features of every note of a chorale, each from all other notes and from its own start, duration and voice.

    Args:
        score: four tracks, each of one voice.
    """
    bars, bar = bars_of(score)
    start, pitch, duration, track = (score.column(c).numpy() for c in (Column.START, Column.PITCH, Column.DURATION, Column.TRACK))
    order = np.lexsort((start, track))
    in_bar, bar_length = (start - bars.start_of(bar))[order], bars.length_of(bar)[order]
    start, pitch, duration, track = (x[order] for x in (start, pitch, duration, track))
    before = np.stack([_shifted(pitch, track, -k) for k in range(1, NEAR + 1)], axis=1)
    after = np.stack([_shifted(pitch, track, k) for k in range(1, NEAR + 1)], axis=1)
    lengths = np.stack([_shifted(duration, track, k) for k in (-2, -1, 1, 2)], axis=1)
    reference = np.where(np.isnan(before[:, 0]), after[:, 0], before[:, 0])
    around = reference[:, None]
    features = [
        np.stack([track, in_bar, in_bar % TICKS_PER_BEAT, bar_length, duration, reference], axis=1),
        before - around,
        after - around,
        lengths,
        _other_voices(start, pitch, duration, track, around),
        *_classes(start, pitch, duration, reference.astype(int)),
    ]
    context = np.stack([track, around[:, 0], np.nan_to_num(after[:, 0] - around[:, 0], nan=99)], axis=1).astype(int)
    return Hidden(np.concatenate(features, axis=1).astype(np.float32), reference.astype(int), pitch, context)


def _shifted(values: np.ndarray, track: np.ndarray, step: int) -> np.ndarray:
    """Return the value of the note so many later in the same voice; nan where there is none. Notes are sorted by voice."""
    place = np.arange(len(values)) + step
    inside = (place >= 0) & (place < len(values))
    place = place.clip(0, len(values) - 1)
    return np.where(inside & (track[place] == track), values[place].astype(float), np.nan)


def _other_voices(start: np.ndarray, pitch: np.ndarray, duration: np.ndarray, track: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Return, of each voice, the interval from the reference to what it sings when the note begins, before, after and when it ends.

    Also how long ago what it sings began, and how soon its next note comes. Of the note's own voice all is nan.
    """
    columns = []
    for voice in range(NUM_VOICES):
        own = np.flatnonzero(track == voice)
        for when in (start, start + duration - 1):
            place = np.searchsorted(start[own], when, side="right") - 1
            columns.append(_at(pitch[own], place))
            if when is start:
                columns += [_at(pitch[own], place - 1), _at(pitch[own], place + 1)]
                times = [_at(start[own], place), _at(start[own], place + 1)]
        apart = [start - times[0], times[1] - start]
        rows = np.stack(columns[-4:], axis=1) - around
        columns[-4:] = [np.where(track == voice, np.nan, column) for column in (*rows.T, *apart)]
    return np.stack(columns, axis=1)


def _at(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    inside = (place >= 0) & (place < len(values))
    return (
        np.where(inside, values[place.clip(0, max(0, len(values) - 1))].astype(float), np.nan)
        if len(values)
        else np.full(len(place), np.nan)
    )


def _classes(start: np.ndarray, pitch: np.ndarray, duration: np.ndarray, reference: np.ndarray) -> list[np.ndarray]:
    """Return ``(n, 12)`` each, how much of each pitch class above the reference there is among the other notes, then the key.

    Those that sound with the note, by how long; those that begin with it; those that sound when it ends, and before it; those that begin
    near it, by their duration. Of the key: the number of its tonic below the reference, and 1 for minor.
    """
    end = start + duration
    together = np.minimum(end[:, None], end) - np.maximum(start[:, None], start)
    weights = [
        together.clip(min=0) / duration[:, None],
        start[:, None] == start,
        (start <= end[:, None]) & (end[:, None] < end),
        (start <= start[:, None] - 1) & (start[:, None] - 1 < end),
        *((np.abs(start[:, None] - start) <= reach * TICKS_PER_BEAT) * duration for reach in REACHES),
    ]
    classes, others = np.eye(12)[pitch % 12], ~np.eye(len(start), dtype=bool)
    place = (reference[:, None] + np.arange(12)) % 12
    found = [(own * others) @ classes for own in weights]
    found = [*found[:4], *(own / own.sum(1, keepdims=True).clip(min=1) for own in found[4:])]
    fits = np.stack([np.roll(profile - profile.mean(), tonic) / profile.std() for profile in (MAJOR, MINOR) for tonic in range(12)])
    key = (found[-1] @ fits.T).argmax(1)
    above = (reference - key % 12) % 12
    return [*(np.take_along_axis(own, place, axis=1) for own in found), np.stack([above, key // 12], axis=1)]
