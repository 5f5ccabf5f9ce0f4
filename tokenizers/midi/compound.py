"""Compound-word tokens: one token of four fields per note.

Letters in shapes: n notes or tokens, m those of them that are kept.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.tokenizers.midi.score import Column, Score
from multimodal.tokenizers.midi.tokenizer import MidiTokenizer, OutOfRange

POSITION_TICKS = 120
DURATION_TICKS = 60
BAR_TICKS = 1920
NUM_POSITIONS = BAR_TICKS // POSITION_TICKS
NUM_DURATIONS = 64
NEW, CONTINUE = 0, 1
BAR, POSITION, PITCH, DURATION = range(4)
DECODED_VELOCITY = 80


class CompoundTokenizer(MidiTokenizer):
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

    def __init__(self, pitch_range: tuple[int, int] = (22, 107), out_of_range: OutOfRange = "clamp") -> None:
        super().__init__(pitch_range, out_of_range)

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

    def kinds(self) -> tuple[Int[Tensor, " ids"], ...]:
        """Return 0 at the ids of each field, -1 at PAD and MASK."""
        return tuple(-(torch.arange(size) >= pad).long() for size, pad in zip(self.vocab_sizes, self.pad_ids, strict=True))

    def encode_score(self, score: Score) -> Int[Tensor, "n 4"]:
        """Return the ids of a score's notes, in its order; the first note opens a bar.

        Notes keep the order they have before snapping, as published.

        Raises:
            ValueError: a start is negative or starts do not ascend.
        """
        notes = self.restrict(score).notes
        start, pitch, duration = notes[:, Column.START], notes[:, Column.PITCH], notes[:, Column.DURATION]
        if len(notes) and (start[0] < 0 or (start.diff() < 0).any()):
            raise ValueError("notes must be sorted by start, and starts must not be negative (see sort_notes).")
        slot = _nearest(start, POSITION_TICKS)
        bar = slot // NUM_POSITIONS
        opens = torch.ones_like(bar, dtype=torch.bool)
        opens[1:] = bar[1:] != bar[:-1]
        length = _nearest(duration, DURATION_TICKS).clamp(1, NUM_DURATIONS)
        return torch.stack([torch.where(opens, NEW, CONTINUE), slot % NUM_POSITIONS, pitch - self.pitch_range[0], length - 1], dim=1)

    def decode_all(self, ids: Int[Tensor, "n 4"]) -> tuple[Int[Tensor, "n 6"], Bool[Tensor, " n"]]:
        """Return a note for each token, and True where the token is a note: no field is PAD or MASK.

        The bar of a note is the number of "new" ids up to it, less one; tokens before the first lie in bar 0.
        Where a token is no note, its row is without meaning.
        """
        is_note = (ids < ids.new_tensor(self.pad_ids)).all(1)
        bar = ((ids[:, BAR] == NEW).cumsum(0) - 1).clamp(min=0)
        start = bar * BAR_TICKS + ids[:, POSITION] * POSITION_TICKS
        duration = (ids[:, DURATION] + 1) * DURATION_TICKS
        zero = torch.zeros_like(start)
        notes = torch.stack([start, ids[:, PITCH] + self.pitch_range[0], duration, zero + DECODED_VELOCITY, zero, zero], dim=1)
        return notes, is_note

    def decode_score(self, ids: Int[Tensor, "n 4"]) -> Score:
        """Return the notes (velocity 80) of a piano; ids that a model predicted may be any, and what is no note is left out."""
        notes, is_note = self.decode_all(ids)
        return Score(torch.zeros(0, len(Column), dtype=torch.int64)).with_notes(notes[is_note].cpu())

    def note_of(self, ids: Int[Tensor, "n 4"]) -> Int[Tensor, " n"]:
        """Return the number of each token: every token is a note."""
        return torch.arange(len(ids), device=ids.device)


def _nearest(ticks: Int[Tensor, " n"], step: int) -> Int[Tensor, " n"]:
    """Return the nearest multiple of ``step``, in steps; halves go down, as the first minimum does in the published code."""
    return (ticks + (step - 1) // 2) // step
