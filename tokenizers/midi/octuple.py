"""Octuple tokens: one token of eight fields per note.

Letters in shapes: n tokens (notes), items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.tokenizers.midi.bars import NUM_METRES, WHOLE_TICKS, Bars
from multimodal.tokenizers.midi.grid import Field, Grid
from multimodal.tokenizers.midi.score import DRUMS, TICKS_PER_BEAT, Column, Score
from multimodal.tokenizers.midi.tokenizer import DRUM_CLASS, GridTokenizer, first_tokens

POSITIONS_PER_BEAT = 16
MAX_BARS = 256
DURATIONS = np.concatenate([16 * (2**i - 1) + 2**i * np.arange(16) for i in range(8)])
"""In positions: 16 steps of each size, the sizes doubling."""
DRUM_PITCH = 128
"""Added to the pitches of drums."""
SPECIALS = 6
PAD, MASK = 0, 1
"""Places among the specials: PAD, MASK, SOS, EOS, CLS, SEP."""
COLUMNS = {
    Field.BAR: MAX_BARS,
    Field.POSITION: 2 * 4 * POSITIONS_PER_BEAT,
    Field.PROGRAM: DRUMS + 1,
    Field.PITCH: 2 * DRUM_PITCH,
    Field.DURATION: len(DURATIONS),
    Field.VELOCITY: 32,
    Field.TIME_SIGNATURE: NUM_METRES,
    Field.TEMPO: 49,
}
"""The fields in the order of the ids, and how many numbers each has."""
NAMES = ("bar", "position", "instrument", "pitch", "duration", "velocity", "time_signature", "tempo")


class OctupleTokenizer(GridTokenizer):
    """Octuples of MusicBERT (https://arxiv.org/abs/2106.05630) with the dictionary of PianoBart and Adversarial-MidiBERT.

    A token is (bar, position, instrument, pitch, duration, velocity, time signature, tempo): 256 bars, 16 positions a beat, programs with
    drums as 128, pitches with those of drums 128 higher, durations down to 16 steps of each of 8 doubling sizes from 1/16 of a beat,
    velocities in 32 bins, 254 metres (longer bars are divided), tempos of 12 steps an octave from 16 to 256. The last six ids of each field
    are PAD, MASK, SOS, EOS, CLS and SEP. Starts, ends and changes of tempo and metre go to the nearest position, halves to the even one.
    Tokens are sorted by position, instrument, pitch, duration and velocity.

    Bars count from the start of the piece. Where a window ends after the 256th, all its bars are moved down, by as little as needed; notes
    256 bars and more after its first are left out.

    Departures: a change of metre within a bar counts from the next bar on, also for what notes say; there they say the new metre in the old
    bar, whose length can then not be told. There, what is after 2^16 positions is left out, and windows are moved at random.

    Source: https://github.com/microsoft/muzic, musicbert/preprocess.py; https://github.com/RS2002/PianoBart, Data/Octuple.pkl.
    """

    grid: OctupleGrid

    def __init__(self) -> None:
        super().__init__(OctupleGrid(), (0, 127), "clamp")

    @property
    def field_names(self) -> tuple[str, ...]:
        """The names of the eight fields."""
        return NAMES

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """Ids of each field, specials included: 262, 134, 135, 262, 134, 38, 260, 55."""
        return tuple(size + SPECIALS for size in COLUMNS.values())

    @property
    def pad_ids(self) -> tuple[int, ...]:
        """The PAD id of each field."""
        return tuple(size + PAD for size in COLUMNS.values())

    @property
    def mask_ids(self) -> tuple[int, ...]:
        """The MASK id of each field."""
        return tuple(size + MASK for size in COLUMNS.values())

    def kinds(self) -> tuple[Int[Tensor, " ids"], ...]:
        """Return 0 at the ids of each field, -1 at the specials."""
        return tuple(-(torch.arange(size + SPECIALS) >= size).long() for size in COLUMNS.values())

    def restrict(self, score: Score) -> Score:
        """Return the score in the order of its tokens; there are ids for all pitches."""
        order = self.grid.order(score.notes.numpy())
        return score if (order == np.arange(len(order))).all() else score[torch.from_numpy(order)]

    def note_of(self, ids: Int[Tensor, "n 8"]) -> Int[Tensor, " n"]:
        """Return the number of each token: every token is a note."""
        return torch.arange(len(ids), device=ids.device)

    def groups(self, ids: Int[Tensor, "n 8"], lengths: Int[Tensor, " items"]) -> Mapping[str, Int[Tensor, " n"]]:
        """Return the bar of each token (bars with notes, from 0), its pitch class (12 for drums), and its instrument as its track."""
        columns = dict(zip(COLUMNS, ids.unbind(1), strict=True))
        first = first_tokens(lengths, len(ids))
        opened = (columns[Field.BAR] != columns[Field.BAR].roll(1)).long().cumsum(0)
        pitch_class = (columns[Field.PITCH] % 12).masked_fill(columns[Field.PITCH] >= DRUM_PITCH, DRUM_CLASS)
        return {"bar": opened - opened[first], "pitch_class": pitch_class, "track": columns[Field.PROGRAM]}

    def _pack(self, fields: Int[np.ndarray, "n 9"]) -> Int[np.ndarray, "n 8"]:
        ids = fields.T[list(COLUMNS)].T  # rows are faster taken than columns
        ids[:, NAMES.index("pitch")] += DRUM_PITCH * (fields[:, Field.PROGRAM] == DRUMS)
        return ids

    def _places(self, ids: Int[np.ndarray, "n 8"]) -> Int[np.ndarray, " m"]:
        return np.flatnonzero((ids < np.array(self.pad_ids)).all(1))

    def _read(self, ids: Int[np.ndarray, "n 8"], places: Int[np.ndarray, " m"]) -> tuple[Int[np.ndarray, "m 9"], Bool[np.ndarray, " m"]]:
        fields = np.zeros((len(places), len(Field)), np.int64)
        said, sizes = ids[places], np.array(self.pad_ids)
        fields[:, list(COLUMNS)] = np.minimum(said, sizes - 1)  # what is no note is one nevertheless
        fields[:, Field.PITCH] %= DRUM_PITCH
        return fields, (said < sizes).all(1)

    def _lay_out(self, fields: Int[np.ndarray, "m 9"], ids: Int[np.ndarray, "n 8"], places: Int[np.ndarray, " m"]) -> None:
        """Leave all as it is: each token tells its bar and metre."""


@dataclass(frozen=True)
class OctupleGrid(Grid):
    """The grid of octuples, which lies over the whole piece."""

    step: int = TICKS_PER_BEAT // POSITIONS_PER_BEAT
    bar_ticks: int = 2 * WHOLE_TICKS
    duration_step: int = TICKS_PER_BEAT // POSITIONS_PER_BEAT
    num_durations: int = len(DURATIONS)
    reads_metres: bool = True
    tells_metres: bool = True
    velocity_bins: int = COLUMNS[Field.VELOCITY]
    tempo_bins: int = COLUMNS[Field.TEMPO]
    programs: bool = True

    def fields(self, score: Score) -> Int[np.ndarray, "n 9"]:
        """Return the columns of ``Field``, without notes that lie too many bars after the first; see ``Grid.fields``."""
        fields = super().fields(score)
        return fields[fields[:, Field.BAR] < MAX_BARS]

    def order(self, notes: Int[np.ndarray, "n 6"]) -> Int[np.ndarray, " n"]:
        """Return the order of the tokens of notes."""
        key = self._snapped(notes[:, Column.START]) // self.step  # at most 35 bits, see read_score; 27 follow
        velocity = notes[:, Column.VELOCITY] * self.velocity_bins // 128
        for column, size in ((notes[:, Column.PROGRAM], 256), (notes[:, Column.PITCH], 128), (self._durations(notes), 128), (velocity, 32)):
            key = key * size + column
        return key.argsort(kind="stable")

    def _bars(self, score: Score) -> Bars:
        metres = score.metres.numpy().copy()
        metres[:, 0] = self._snapped(metres[:, 0])
        return Bars.uncut(metres, self.bar_ticks)

    def _snapped(self, ticks: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        return np.rint(ticks / self.step).astype(np.int64) * self.step

    def _numbered(self, bar: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        return bar - (bar[-1:] - MAX_BARS + 1).clip(0, bar[:1])

    def _durations(self, notes: Int[np.ndarray, "n 6"]) -> Int[np.ndarray, " n"]:
        start = notes[:, Column.START]
        length = (self._snapped(start + notes[:, Column.DURATION]) - self._snapped(start)) // self.step
        return np.searchsorted(DURATIONS, length, side="right") - 1

    def _duration_ticks(self, durations: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        return (DURATIONS[durations] * self.step).clip(1)
