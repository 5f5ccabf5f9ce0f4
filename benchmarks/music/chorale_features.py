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
WINDOW_BEATS = 4
"""On each side, for the pitches that are heard around a note."""
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


def hidden_pitches(score: Score, repeats: bool = False) -> Hidden:
    """Return features of every note of a chorale, each from all other notes and from its own start, duration and voice.

    Args:
        score: four tracks, each of one voice.
        repeats: also look for the same surroundings elsewhere in the voice, and what was there.
    """
    bars, bar = bars_of(score)
    start, pitch, duration, track = (score.column(c).numpy() for c in (Column.START, Column.PITCH, Column.DURATION, Column.TRACK))
    in_bar = start - bars.start_of(bar)
    order = np.lexsort((start, track))
    start, pitch, duration, track, in_bar = (x[order] for x in (start, pitch, duration, track, in_bar))
    before = np.stack([_shifted(pitch, track, -k) for k in range(1, NEAR + 1)], axis=1)
    after = np.stack([_shifted(pitch, track, k) for k in range(1, NEAR + 1)], axis=1)
    lengths = np.stack([_shifted(duration, track, k) for k in (-2, -1, 1, 2)], axis=1)
    reference = np.where(np.isnan(before[:, 0]), after[:, 0], before[:, 0])
    around = reference[:, None]
    columns = [
        np.stack([track, in_bar, in_bar % TICKS_PER_BEAT, bars.length_of(bar)[order], duration, around[:, 0]], axis=1),
        before - around,
        after - around,
        lengths,
        _other_voices(start, pitch, duration, track, around),
        _heard(start, pitch, duration, reference, WINDOW_BEATS * TICKS_PER_BEAT),
        _heard(start, pitch, duration, reference, 10**9),
    ]
    if repeats:
        columns.append(_elsewhere(before, after, track, pitch) - around)
    context = np.stack([track, around[:, 0], np.nan_to_num(after[:, 0] - around[:, 0], nan=99)], axis=1).astype(int)
    return Hidden(np.concatenate(columns, axis=1).astype(np.float32), reference.astype(int), pitch, context)


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


def _heard(start: np.ndarray, pitch: np.ndarray, duration: np.ndarray, reference: np.ndarray, reach: int) -> np.ndarray:
    """Return ``(n, 12)`` the share of each pitch class above the reference in the time of the other notes that begin within a reach."""
    near = np.abs(start[:, None] - start) <= reach
    np.fill_diagonal(near, False)
    weights = near * duration
    classes = np.eye(12)[pitch % 12]
    heard = weights @ classes / weights.sum(1, keepdims=True).clip(min=1)
    place = (reference.astype(int)[:, None] + np.arange(12)) % 12
    return np.take_along_axis(heard, place, axis=1)


def _elsewhere(before: np.ndarray, after: np.ndarray, track: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """Return ``(n, 2)`` the pitch of another note of the voice between the same neighbours: two and one on each side; nan: none."""
    found = []
    for count in (2, 1):
        context = np.concatenate([before[:, :count], after[:, :count]], axis=1)
        same = (context[:, None] == context).all(-1) & (track[:, None] == track)
        np.fill_diagonal(same, False)
        found.append(np.where(same.any(1), pitch[same.argmax(1)].astype(float), np.nan))
    return np.stack(found, axis=1)
