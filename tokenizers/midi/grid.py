"""Notes of a score <-> numbers on a grid of time, velocity and tempo: what all tokens of music say, however they are laid out.

All times are in ticks, 480 to a beat. Letters in shapes: n notes, t changes of tempo, b bars with notes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from jaxtyping import Int

from multimodal.tokenizers.midi.bars import WHOLE_TICKS, Bars, metre_ids, metres_of
from multimodal.tokenizers.midi.score import BEATS_PER_MINUTE, MICROSECONDS, Column, Score

MIN_TEMPO, TEMPO_OCTAVES = 16.0, 4
"""Tempos that are told apart: 16 to 256 beats a minute."""
DECODED_VELOCITY, PIANO = 80, 0


class Field(IntEnum):
    """Columns of notes on a grid; each number counts from 0."""

    BAR = 0
    POSITION = 1
    PITCH = 2
    DURATION = 3
    VELOCITY = 4
    PROGRAM = 5
    TRACK = 6
    TEMPO = 7
    TIME_SIGNATURE = 8


@dataclass(frozen=True)
class Grid:
    """What is kept of notes, and how finely.

    Args:
        step: ticks from one position to the next.
        bar_ticks: of the longest bar.
        duration_step: ticks from one duration to the next, and of the shortest.
        num_durations: how many there are; longer notes get the longest.
        lowest_pitch: that of number 0.
        reads_metres: whether bars are those of the score's metres; else all are ``bar_ticks`` long.
        tells_metres: whether metres are kept.
        max_empty_bars: of bars without notes in a row, at most so many are kept.
        velocity_bins: of equal width over 0 to 127; 0: velocities are not kept.
        tempo_bins: from 16 to 256 beats a minute, at equal ratios; 0: tempos are not kept.
        num_tracks: tracks that are told apart; later ones count as the last. 0: tracks are not kept.
        programs: whether programs are kept, with drums as one more.
    """

    step: int
    bar_ticks: int
    duration_step: int
    num_durations: int
    lowest_pitch: int = 0
    reads_metres: bool = False
    tells_metres: bool = False
    max_empty_bars: int = 0
    velocity_bins: int = 0
    tempo_bins: int = 0
    num_tracks: int = 0
    programs: bool = False

    def fields(self, score: Score) -> Int[np.ndarray, "n 9"]:
        """Return the columns of ``Field`` for the notes of a score, in their order. What is not kept is 0.

        Raises:
            ValueError: a start is negative or starts do not ascend, or a metre has no number.
        """
        notes = score.notes.numpy()
        start = self._snapped(notes[:, Column.START])
        if len(start) and (start[0] < 0 or (start[1:] < start[:-1]).any()):
            raise ValueError("notes must be sorted by start, and starts must not be negative (see sort_notes).")
        fields = np.zeros((len(Field), len(notes)), np.int64).T  # a column lies in one piece
        bars = self._bars(score)
        bar, position = bars.place(start, self.step)
        fields[:, Field.BAR], fields[:, Field.POSITION] = self._numbered(bar), position
        fields[:, Field.PITCH] = notes[:, Column.PITCH] - self.lowest_pitch
        fields[:, Field.DURATION] = self._durations(notes)
        if self.velocity_bins:
            fields[:, Field.VELOCITY] = notes[:, Column.VELOCITY] * self.velocity_bins // 128
        if self.programs:
            fields[:, Field.PROGRAM] = notes[:, Column.PROGRAM]
        if self.num_tracks:
            fields[:, Field.TRACK] = notes[:, Column.TRACK].clip(0, self.num_tracks - 1)
        if self.tempo_bins:
            fields[:, Field.TEMPO] = self._tempos(score, bars, bars.start_of(bar) + position * self.step)
        if self.tells_metres:
            fields[:, Field.TIME_SIGNATURE] = metre_ids(bars.metres)[bars.stretch_of(bar)]
        return fields

    def notes(self, fields: Int[np.ndarray, "n 9"]) -> Int[np.ndarray, "n 6"]:
        """Return the columns of ``Column`` for notes on the grid, in their order; bars are laid out as the notes say all together.

        What is not kept is left to its default: velocity 80, a piano, bars of ``bar_ticks``. Without tracks, each program is one.
        """
        notes = np.zeros((len(fields), len(Column)), np.int64)
        notes[:, Column.START] = self._bar_starts(fields) + fields[:, Field.POSITION] * self.step
        notes[:, Column.PITCH] = fields[:, Field.PITCH] + self.lowest_pitch
        notes[:, Column.DURATION] = self._duration_ticks(fields[:, Field.DURATION])
        notes[:, Column.VELOCITY] = self._velocities(fields[:, Field.VELOCITY])
        notes[:, Column.PROGRAM] = fields[:, Field.PROGRAM] if self.programs else PIANO
        if self.num_tracks:
            notes[:, Column.TRACK] = fields[:, Field.TRACK]
        elif self.programs:
            notes[:, Column.TRACK] = np.unique(fields[:, Field.PROGRAM], return_inverse=True)[1]
        return notes

    def score(self, fields: Int[np.ndarray, "n 9"]) -> Score:
        """Return the score of notes on the grid, sorted by start alone: notes that start together keep their order."""
        notes = self.notes(fields)
        order = np.argsort(notes[:, Column.START], kind="stable")
        notes, fields = notes[order], fields[order]
        tempos, metres = np.zeros((0, 2), np.int64), np.zeros((0, 3), np.int64)
        if self.tempo_bins:
            tempos = _changes(notes[:, Column.START], self._microseconds(fields[:, Field.TEMPO]))
        if self.tells_metres:
            in_bars = fields[np.argsort(fields[:, Field.BAR], kind="stable")]
            metres = _changes(self._bar_starts(in_bars), metres_of(_of_most(in_bars)))
        elif self.bar_ticks != WHOLE_TICKS:
            metres = np.array([[0, *metre_of_length(self.bar_ticks)]])
        return Score(torch.from_numpy(notes), torch.from_numpy(tempos), torch.from_numpy(metres))

    def _bars(self, score: Score) -> Bars:
        if not self.reads_metres:
            return Bars.equal(self.bar_ticks)
        return Bars.of(score.metres.numpy(), min(self.bar_ticks, 2 * WHOLE_TICKS) if self.tells_metres else self.bar_ticks)

    def _snapped(self, ticks: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Return times as they are placed in bars: here as they are, so that slots begin where bars do."""
        return ticks

    def _numbered(self, bar: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Return the numbers of bars, from the first note's on, without bars that are not kept."""
        numbers = np.zeros_like(bar)
        np.minimum(bar[1:] - bar[:-1], self.max_empty_bars + 1).cumsum(out=numbers[1:])
        return numbers

    def _durations(self, notes: Int[np.ndarray, "n 6"]) -> Int[np.ndarray, " n"]:
        """Return the numbers of the nearest durations; halves go down, as the first minimum does in MidiBERT's code."""
        steps = (notes[:, Column.DURATION] + (self.duration_step - 1) // 2) // self.duration_step
        return np.minimum(np.maximum(steps, 1), self.num_durations) - 1

    def _duration_ticks(self, durations: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        return (durations + 1) * self.duration_step

    def _velocities(self, bins: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Return the velocity in the middle of each bin, of two the higher."""
        if not self.velocity_bins:
            return np.full_like(bins, DECODED_VELOCITY)
        low, end = (-(-128 * number // self.velocity_bins) for number in (bins, bins + 1))
        return ((low + end) // 2).clip(1, 127)  # velocity 0 means the end of a note

    def _tempos(self, score: Score, bars: Bars, ticks: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Return the number of the tempo at each slot; changes of tempo lie on the grid too."""
        when, microseconds = score.tempos.numpy().T
        bar, position = bars.place(self._snapped(when), self.step)
        beats = np.concatenate([[BEATS_PER_MINUTE], MICROSECONDS / microseconds])
        octaves = np.log2(beats.clip(MIN_TEMPO, MIN_TEMPO * 2**TEMPO_OCTAVES) / MIN_TEMPO)
        numbers = np.rint(octaves * ((self.tempo_bins - 1) / TEMPO_OCTAVES)).astype(np.int64)
        return numbers[np.searchsorted(bars.start_of(bar) + position * self.step, ticks, side="right")]

    def _microseconds(self, tempos: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n 1"]:
        beats = MIN_TEMPO * 2 ** (tempos * (TEMPO_OCTAVES / (self.tempo_bins - 1)))
        return np.rint(MICROSECONDS / beats).astype(np.int64)[:, None]

    def _bar_starts(self, fields: Int[np.ndarray, "n 9"]) -> Int[np.ndarray, " n"]:
        """Return where the bar of each note starts. Bars without notes are as long as the one with notes before them, or after them."""
        if not self.tells_metres or not len(fields):
            return fields[:, Field.BAR] * self.bar_ticks
        bars, first, of_note = np.unique(fields[:, Field.BAR], return_index=True, return_inverse=True)
        numerator, denominator = metres_of(_of_most(fields)[first]).T
        lengths = WHOLE_TICKS * numerator // denominator
        steps = np.concatenate([bars[:1] * lengths[:1], np.diff(bars) * lengths[:-1]])
        return steps.cumsum()[of_note]


def metre_of_length(ticks: int) -> tuple[int, int]:
    """Return the metre of bars of a length, in quarters or the next finer notes.

    Raises:
        ValueError: there is none.
    """
    denominator = 4
    while ticks * denominator % WHOLE_TICKS and denominator < WHOLE_TICKS:
        denominator *= 2
    numerator, rest = divmod(ticks * denominator, WHOLE_TICKS)
    if rest or not 1 <= numerator < 256:
        raise ValueError(f"there is no metre with bars of {ticks / WHOLE_TICKS:.4g} whole notes.")
    return numerator, denominator


def _of_most(fields: Int[np.ndarray, "n 9"]) -> Int[np.ndarray, " n"]:
    """Return the metre of the bar of each note: that which most notes of the bar say, of equals the lowest."""
    bar, metre = fields[:, Field.BAR], fields[:, Field.TIME_SIGNATURE]
    pairs, counts = np.unique(np.stack([bar, metre], axis=1), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
    bars, first = np.unique(pairs[order, 0], return_index=True)
    return pairs[order[first], 1][np.searchsorted(bars, bar)]


def _changes(ticks: Int[np.ndarray, " n"], values: Int[np.ndarray, "n k"]) -> Int[np.ndarray, "t k+1"]:
    """Return (tick, value) where values change, the first at 0; ticks ascend, and of several values at one the last counts."""
    last = np.append(ticks[1:] != ticks[:-1], np.ones(min(1, len(ticks)), bool))
    ticks, values = ticks[last], values[last]
    changed = np.append(np.ones(min(1, len(ticks)), bool), (values[1:] != values[:-1]).any(1))
    rows = np.concatenate([ticks[:, None], values], axis=1)[changed]
    rows[:1, 0] = 0
    return rows
