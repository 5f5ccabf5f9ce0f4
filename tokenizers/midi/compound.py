"""Compound-word tokens: one token of four fields per note.

Letters in shapes: n notes or tokens, m those of them that are kept.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.tokenizers.midi.notes import Column
from multimodal.tokenizers.pretrained import PretrainedTokenizer

POSITION_TICKS = 120
DURATION_TICKS = 60
BAR_TICKS = 1920
NUM_POSITIONS = BAR_TICKS // POSITION_TICKS
NUM_DURATIONS = 64
NEW, CONTINUE = 0, 1
BAR, POSITION, PITCH, DURATION = range(4)
DECODED_VELOCITY = 80


class CompoundTokenizer(PretrainedTokenizer):
    """Compound words of MidiBERT (https://arxiv.org/abs/2107.05223): (bar, position, pitch, duration), with the ids it published.

    Bar: 0 the first note of a bar, 1 a later one. Position: 16 slots of 120 ticks in a 4/4 bar of 1920. Pitch: 22 to 107 as 0 to 85.
    Duration: the nearest of 60, 120, ..., 3840 ticks as 0 to 63. The last two ids of each field are PAD and MASK. Halves are rounded
    down. Bars without notes vanish; tempo, velocity and metre are left out.

    Departures: the published grid of starts ends before the last note, so that the last notes snap down; here every start goes to the
    nearest slot. Pitches outside the range are clamped or dropped where the published code fails. Files of any resolution are rescaled.

    Args:
        pitch_range: lowest and highest MIDI pitch that has an id, both included.
        out_of_range: whether notes outside the range move to its nearest end, or are left out.
    """

    def __init__(self, pitch_range: tuple[int, int] = (22, 107), out_of_range: Literal["clamp", "drop"] = "clamp") -> None:
        super().__init__()
        if not 0 <= pitch_range[0] <= pitch_range[1] <= 127:
            raise ValueError(f"pitch_range must be ascending within 0 to 127, got {tuple(pitch_range)}.")
        if out_of_range not in ("clamp", "drop"):
            raise ValueError(f"out_of_range must be 'clamp' or 'drop', got {out_of_range!r}.")
        self.pitch_range = (int(pitch_range[0]), int(pitch_range[1]))
        self.out_of_range = out_of_range

    @property
    def field_names(self) -> tuple[str, ...]:
        """Bar, position, pitch, duration."""
        return ("bar", "position", "pitch", "duration")

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """Ids of each field, PAD and MASK included: 4, 18, 88, 66 for the published range of pitches."""
        return (4, NUM_POSITIONS + 2, self.pitch_range[1] - self.pitch_range[0] + 3, NUM_DURATIONS + 2)

    @property
    def pad_ids(self) -> tuple[int, ...]:
        """The PAD id of each field."""
        return tuple(size - 2 for size in self.vocab_sizes)

    @property
    def mask_ids(self) -> tuple[int, ...]:
        """The MASK id of each field."""
        return tuple(size - 1 for size in self.vocab_sizes)

    def encode(self, values: Int[Tensor, "n 4"], lengths: Tensor | None = None) -> Int[Tensor, "n 4"]:
        """Return the argument: the ids were made when the file was read (``encode_notes`` in ``MidiTransform``)."""
        return values

    def restrict(self, notes: Int[Tensor, "n 4"]) -> Int[Tensor, "m 4"]:
        """Return the notes that have a pitch id; those outside the range are clamped to it or dropped."""
        low, high = self.pitch_range
        pitch = notes[:, Column.PITCH]
        if self.out_of_range == "drop":
            return notes[(pitch >= low) & (pitch <= high)]
        notes = notes.clone()
        notes[:, Column.PITCH] = pitch.clamp(low, high)
        return notes

    def encode_notes(self, notes: Int[Tensor, "n 4"]) -> Int[Tensor, "m 4"]:
        """Return the ids of a table of notes, in its order; the first note opens a bar.

        Notes keep the order they have before snapping, as published.

        Raises:
            ValueError: a start is negative or starts do not ascend.
        """
        notes = self.restrict(notes)
        start, pitch, duration = notes[:, Column.START], notes[:, Column.PITCH], notes[:, Column.DURATION]
        if len(notes) and (start[0] < 0 or (start.diff() < 0).any()):
            raise ValueError("notes must be sorted by start, and starts must not be negative (see sort_notes).")
        slot = _nearest(start, POSITION_TICKS)
        bar = slot // NUM_POSITIONS
        opens = torch.ones_like(bar, dtype=torch.bool)
        opens[1:] = bar[1:] != bar[:-1]
        length = _nearest(duration, DURATION_TICKS).clamp(1, NUM_DURATIONS)
        return torch.stack([torch.where(opens, NEW, CONTINUE), slot % NUM_POSITIONS, pitch - self.pitch_range[0], length - 1], dim=1)

    def decode_all(self, ids: Int[Tensor, "n 4"]) -> tuple[Int[Tensor, "n 4"], Bool[Tensor, " n"]]:
        """Return a note for each token, and True where the token is a note: no field is PAD or MASK.

        The bar of a note is the number of "new" ids up to it, less one; tokens before the first lie in bar 0.
        Where a token is no note, its row is without meaning.
        """
        is_note = (ids < ids.new_tensor(self.pad_ids)).all(1)
        bar = ((ids[:, BAR] == NEW).cumsum(0) - 1).clamp(min=0)
        start = bar * BAR_TICKS + ids[:, POSITION] * POSITION_TICKS
        duration = (ids[:, DURATION] + 1) * DURATION_TICKS
        notes = torch.stack([start, ids[:, PITCH] + self.pitch_range[0], duration, torch.full_like(start, DECODED_VELOCITY)], dim=1)
        return notes, is_note

    def decode(self, ids: Int[Tensor, "n 4"]) -> Int[Tensor, "m 4"]:
        """Return the notes (velocity 80) in the order of the ids; ids that a model predicted may be any, so starts may not ascend."""
        notes, is_note = self.decode_all(ids)
        return notes[is_note]


def _nearest(ticks: Int[Tensor, " n"], step: int) -> Int[Tensor, " n"]:
    """Return the nearest multiple of ``step``, in steps; halves go down, as the first minimum does in the published code."""
    return (ticks + (step - 1) // 2) // step
