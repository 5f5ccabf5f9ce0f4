"""Compound-word tokens: one token of several fields per note.

Letters in shapes: n tokens (notes), k fields, items.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.tokenizers.midi.beat_grid import BeatGridTokenizer
from multimodal.tokenizers.midi.grid import Field
from multimodal.tokenizers.midi.score import DRUMS
from multimodal.tokenizers.midi.tokenizer import DRUM_CLASS, first_tokens

NEW, CONTINUE = 0, 1
SPECIALS = 2


class CompoundTokenizer(BeatGridTokenizer):
    """Compound words of MidiBERT (https://arxiv.org/abs/2107.05223): (bar, position, pitch, duration), with the ids it published.

    Bar: 0 the first note of a bar, 1 a later one; from 2 on the first note of a bar after 1, 2, ... bars without notes, where
    ``max_empty_bars`` keeps them. The other fields are numbers from 0: by default 16 positions in a bar of 4/4, pitches 22 to 107,
    durations 60, 120, ..., 3840 ticks; velocity, program (128: drums), track, tempo and time signature follow where they are asked for. The
    last two ids of each field are PAD and MASK. As published, bars without notes vanish, and tempo, velocity and metre are left out.

    Departures: the published grid of starts ends before the last note, so that the last notes snap down; here every start goes to the
    nearest slot. Pitches outside the range are clamped or dropped where the published code fails. Files of any resolution are rescaled.
    A window's first note opens a bar; the published code cuts the ids of a whole piece.

    The arguments are those of ``BeatGridTokenizer``.
    """

    @property
    def field_names(self) -> tuple[str, ...]:
        """Bar, position, pitch, duration, and what else is told: velocity, program, track, tempo, time_signature."""
        return ("bar", *(field.name.lower() for field in self.numbers))

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """Ids of each field, PAD and MASK included: 4, 18, 88, 66 as published."""
        return tuple(size + SPECIALS for size in (2 + self.grid.max_empty_bars, *self.numbers.values()))

    @property
    def pad_ids(self) -> tuple[int, ...]:
        """The PAD id of each field."""
        return tuple(size - 2 for size in self.vocab_sizes)

    @property
    def mask_ids(self) -> tuple[int, ...]:
        """The MASK id of each field."""
        return tuple(size - 1 for size in self.vocab_sizes)

    def kinds(self) -> tuple[Int[Tensor, " ids"], ...]:
        """Return 0 at the ids of each field, -1 at PAD and MASK."""
        return tuple(-(torch.arange(size) >= pad).long() for size, pad in zip(self.vocab_sizes, self.pad_ids, strict=True))

    def note_of(self, ids: Int[Tensor, "n k"]) -> Int[Tensor, " n"]:
        """Return the number of each token: every token is a note."""
        return torch.arange(len(ids), device=ids.device)

    def groups(self, ids: Int[Tensor, "n k"], lengths: Int[Tensor, " items"]) -> Mapping[str, Int[Tensor, " n"]]:
        """Return the bar of each token (bars with notes, from 0), its pitch class (12 for drums), and its track, or else its program.

        There is no "track" where ids tell neither.
        """
        columns = dict(zip(self.numbers, ids[:, 1:].unbind(1), strict=True))
        opened = (ids[:, 0] != CONTINUE).long().cumsum(0)
        found = {"bar": opened - opened[first_tokens(lengths, len(ids))], "pitch_class": (columns[Field.PITCH] + self.pitch_range[0]) % 12}
        if Field.PROGRAM in columns:
            found["pitch_class"] = found["pitch_class"].masked_fill(columns[Field.PROGRAM] == DRUMS, DRUM_CLASS)
        track = columns.get(Field.TRACK, columns.get(Field.PROGRAM))
        return found if track is None else {**found, "track": track}

    def _pack(self, fields: Int[np.ndarray, "n 9"]) -> Int[np.ndarray, "n k"]:
        ids = fields.T[[Field.BAR, *self.numbers]].T  # rows are faster taken than columns
        passed = fields[1:, Field.BAR] - fields[:-1, Field.BAR]
        ids[:1, 0], ids[1:, 0] = NEW, np.where(passed > 1, passed, 1 - passed)  # none: CONTINUE, one: NEW
        return ids

    def _places(self, ids: Int[np.ndarray, "n k"]) -> Int[np.ndarray, " m"]:
        return np.flatnonzero((ids < np.array(self.pad_ids)).all(1))

    def _read(self, ids: Int[np.ndarray, "n k"], places: Int[np.ndarray, " m"]) -> tuple[Int[np.ndarray, "m 9"], Bool[np.ndarray, " m"]]:
        fields = np.zeros((len(places), len(Field)), np.int64)
        said, sizes = ids[places], np.array(self.pad_ids)
        fields[:, list(self.numbers)] = np.minimum(said, sizes - 1)[:, 1:]  # what is no note is one nevertheless
        return fields, (said < sizes).all(1)

    def _lay_out(self, fields: Int[np.ndarray, "m 9"], ids: Int[np.ndarray, "n k"], places: Int[np.ndarray, " m"]) -> None:
        """Fill in the bar: how many were begun up to the note, less one; before the first it is 0."""
        passed = np.where(ids[:, 0] > CONTINUE, ids[:, 0], 1 - ids[:, 0]) * (ids[:, 0] < self.pad_ids[0])
        fields[:, Field.BAR] = (passed.cumsum() - 1).clip(0)[places]
