"""REMI tokens: several tokens of one id per note, and one for each bar.

Letters in shapes: n tokens, m notes, items.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.tokenizers.midi.bars import metre_ids
from multimodal.tokenizers.midi.beat_grid import BeatGridTokenizer
from multimodal.tokenizers.midi.grid import Field
from multimodal.tokenizers.midi.score import DRUMS, METRE
from multimodal.tokenizers.midi.tokenizer import DRUM_CLASS, first_tokens

BAR = 0
SPECIALS = 2
LAST_PUBLISHED = Field.DURATION
"""PAD and MASK follow the ids of this field."""
NONE = -1


class RemiTokenizer(BeatGridTokenizer):
    """REMI as MidiBERT has it (https://arxiv.org/abs/2107.05223): Bar, and for each note Position, Pitch, Duration, of one dictionary.

    The dictionary has the published 169 ids: Bar 0, Position 1 to 16, Pitch 22 to 107 from 17 on, Duration 60, 120, ..., 3840 ticks from
    103 on, Pad 167, Mask 168. What else is asked for has its ids after Mask, and its tokens after Duration: Velocity, Program, Track,
    Tempo; a Time signature comes after the Bar that it is of, where that has notes. A Bar alone is one without notes, where
    ``max_empty_bars`` keeps them; as published they vanish. The departures are those of ``CompoundTokenizer``.

    The arguments are those of ``BeatGridTokenizer``.
    """

    @cached_property
    def offsets(self) -> dict[Field, int]:
        """The first id of each field."""
        sizes = [1, *(size + SPECIALS * (field == LAST_PUBLISHED) for field, size in self.numbers.items())]
        return dict(zip(self.numbers, accumulate(sizes), strict=False))

    @cached_property
    def note_fields(self) -> list[Field]:
        """What the tokens of a note say, one after the other."""
        return [field for field in self.numbers if field != Field.TIME_SIGNATURE]

    @property
    def tokens_per_note(self) -> int:
        """The tokens of a note, but for those of its bar."""
        return len(self.note_fields)

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """The ids of the dictionary, alone: 169 as published."""
        return (1 + sum(self.numbers.values()) + SPECIALS,)

    @property
    def pad_ids(self) -> tuple[int, ...]:
        """The id of PAD, alone."""
        return (self.offsets[LAST_PUBLISHED] + self.numbers[LAST_PUBLISHED],)

    @property
    def mask_ids(self) -> tuple[int, ...]:
        """The id of MASK, alone."""
        return (self.pad_ids[0] + 1,)

    def kinds(self) -> tuple[Int[Tensor, " ids"], ...]:
        """Return the number of the field of each id, as in ``Field``; -1 at PAD and MASK."""
        kinds = torch.full(self.vocab_sizes, NONE)
        kinds[BAR] = Field.BAR.value
        for field, offset in self.offsets.items():
            kinds[offset : offset + self.numbers[field]] = field.value
        return (kinds,)

    def note_of(self, ids: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Return the number of the note of each token; -1 at bars, time signatures, and what makes no whole note."""
        places = self._places(ids.cpu().numpy())
        found = np.full(len(ids), NONE)
        found[places[:, None] + np.arange(self.tokens_per_note)] = np.arange(len(places))[:, None]
        return torch.from_numpy(found).to(ids.device)

    def groups(self, ids: Int[Tensor, " n"], lengths: Int[Tensor, " items"]) -> Mapping[str, Int[Tensor, " n"]]:
        """Return the bar of each token (from 0), the pitch class of its note (12 for drums), and its track, or else its program.

        Tokens of bars are of no pitch class and track (-1). There is no "track" where ids tell neither.
        """
        opened = (ids == BAR).long().cumsum(0)
        note = self._is(Field.POSITION, ids).long().cumsum(0) - 1
        note = torch.where((ids == BAR) | (ids == self.pad_ids[0]) | self._is(Field.TIME_SIGNATURE, ids), NONE, note)
        pitch = self._told(Field.PITCH, ids, note)
        found = {"bar": opened - opened[first_tokens(lengths, len(ids))], "pitch_class": pitch}
        found["pitch_class"] = torch.where(pitch >= 0, (pitch + self.pitch_range[0]) % 12, NONE)
        if Field.PROGRAM in self.offsets:
            found["track"] = self._told(Field.PROGRAM, ids, note)
            found["pitch_class"] = found["pitch_class"].masked_fill(found["track"] == DRUMS, DRUM_CLASS)
        if Field.TRACK in self.offsets:
            found["track"] = self._told(Field.TRACK, ids, note)
        return found

    def _is(self, field: Field, ids: Tensor) -> Tensor:
        """Return True at ids of a field."""
        offset = self.offsets.get(field)
        return torch.zeros_like(ids, dtype=torch.bool) if offset is None else (ids >= offset) & (ids < offset + self.numbers[field])

    def _told(self, field: Field, ids: Tensor, note: Tensor) -> Tensor:
        """Return for each token the number that its note tells; -1 at tokens of no note."""
        of_note = torch.full((len(ids) + 1,), NONE, device=ids.device)  # the last is for tokens of no note
        telling = self._is(field, ids) & (note >= 0)
        of_note[torch.where(telling, note, len(ids))] = torch.where(telling, ids - self.offsets[field], NONE)
        return of_note[note]

    def _pack(self, fields: Int[np.ndarray, "m 9"]) -> Int[np.ndarray, " n"]:
        passed = np.diff(fields[:, Field.BAR], prepend=fields[:1, Field.BAR] - 1)
        told = Field.TIME_SIGNATURE in self.offsets
        ends = (np.where(passed > 0, passed + told, 0) + self.tokens_per_note).cumsum()
        ids = np.full(ends[-1] if len(ends) else 0, BAR)
        for place, field in enumerate(reversed(self.note_fields), start=1):
            ids[ends - place] = fields[:, field] + self.offsets[field]
        if told:
            opens = passed > 0
            ids[ends[opens] - self.tokens_per_note - 1] = fields[opens, Field.TIME_SIGNATURE] + self.offsets[Field.TIME_SIGNATURE]
        return ids

    def _places(self, ids: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
        first = self.offsets[Field.POSITION]
        places = np.flatnonzero((ids >= first) & (ids < first + self.max_positions))
        places = places[places <= len(ids) - self.tokens_per_note]
        return places[self._read(ids, places)[1]]

    def _read(self, ids: Int[np.ndarray, " n"], places: Int[np.ndarray, " m"]) -> tuple[Int[np.ndarray, "m 9"], Bool[np.ndarray, " m"]]:
        fields = np.zeros((len(places), len(Field)), np.int64)
        offsets, sizes = (np.array([own[field] for field in self.note_fields]) for own in (self.offsets, self.numbers))
        said = ids[places[:, None] + np.arange(self.tokens_per_note)] - offsets
        fields[:, self.note_fields] = said.clip(0, sizes - 1)
        return fields, ((said >= 0) & (said < sizes)).all(1)

    def _lay_out(self, fields: Int[np.ndarray, "m 9"], ids: Int[np.ndarray, " n"], places: Int[np.ndarray, " m"]) -> None:
        """Fill in the bar: how many were begun before the note, less one; and the last time signature before it."""
        fields[:, Field.BAR] = ((ids == BAR).cumsum() - 1).clip(0)[places]
        if Field.TIME_SIGNATURE in self.offsets:
            said = ids - self.offsets[Field.TIME_SIGNATURE]
            last = np.maximum.accumulate(np.where(said >= 0, np.arange(len(ids)), NONE))  # its ids are the last
            default = metre_ids(np.array([METRE]))[0]
            fields[:, Field.TIME_SIGNATURE] = np.where(last >= 0, said[last], default)[places]
