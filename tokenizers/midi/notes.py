"""MIDI files <-> a plain table of notes, for music of one instrument.

A table is ``(n, 4)`` int64 with the first four columns of ``Column``: start, pitch, duration, velocity; times are in ticks, 480 to a beat.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from multimodal.tokenizers.midi.score import BEATS_PER_MINUTE, MICROSECONDS, Column, Score, read_score, sort_notes, write_score

PIANO = 0


def read_notes(data: bytes, drop_drums: bool = True, max_notes: int = 1_000_000, max_bytes: int = 2**26) -> Int[Tensor, "n 4"]:
    """Return the notes of a MIDI file, all tracks merged; see ``read_score``, which tells more."""
    return sort_notes(read_score(data, drop_drums, max_notes, max_bytes).notes[:, : Column.VELOCITY + 1])


def write_notes(notes: Int[Tensor, "n 4"], beats_per_minute: float = 120.0) -> bytes:
    """Return a MIDI file with one piano track in 4/4 that holds the notes; see ``write_score`` for what it refuses."""
    return write_score(score_of(notes, beats_per_minute))


def score_of(notes: Int[Tensor, "n 4"], beats_per_minute: float = BEATS_PER_MINUTE) -> Score:
    """Return the score of a piano that plays the notes in 4/4."""
    track = torch.full((len(notes), 2), PIANO)
    tempo = torch.tensor([[0, round(MICROSECONDS / beats_per_minute)]])
    return Score(sort_notes(torch.cat([notes, track], dim=1)), tempos=tempo, track_names=("piano",))
