"""MIDI files <-> a table of notes.

A table is ``(n, 4)`` int64 with the columns of ``Column``; times are in ticks, 480 to a beat, whatever the file's resolution.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import symusic
import torch
from jaxtyping import Int
from symusic.core import NoteTickList, TrackTick
from torch import Tensor

TICKS_PER_BEAT = 480
MAX_TICK = 2**31 - 1  # symusic holds times as int32
INDEPENDENT = 2  # the type of a file whose tracks are pieces of their own


class Column(IntEnum):
    """Columns of a table of notes."""

    START = 0
    PITCH = 1
    DURATION = 2
    VELOCITY = 3


def read_notes(data: bytes, drop_drums: bool = True, max_notes: int = 1_000_000, max_bytes: int = 2**26) -> Int[Tensor, "n 4"]:
    """Return the notes of a MIDI file, all tracks merged, sorted by (start, pitch, duration, velocity).

    Times are rescaled to 480 ticks per beat: starts and durations each to the nearest tick, halves up, durations to at least 1.
    Tempo, metre, programs and pedals are left out.

    Args:
        data: the file.
        drop_drums: leave out the tracks of the drum channel, where pitch means an instrument.
        max_notes: files with more are refused.
        max_bytes: of the file, at most; the limit is checked before the notes are read.

    Raises:
        ValueError: the file is damaged or no MIDI, has 0 ticks per beat, no notes, is over a limit, or is of type 2 with several tracks,
            which are pieces of their own.
    """
    if len(data) > max_bytes:
        raise ValueError(f"a MIDI file of {len(data)} bytes is over the limit of {max_bytes}.")
    kind, num_tracks = (int.from_bytes(data[start : start + 2]) for start in (8, 10))
    if data.startswith(b"MThd") and kind == INDEPENDENT and num_tracks > 1:
        raise ValueError(f"a MIDI file of type 2 with {num_tracks} independent pieces: write each into a file of its own.")
    try:
        score: Any = symusic.Score.from_midi(data)  # symusic's stubs do not tell what its factories make
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(f"not a MIDI file, or a damaged one ({len(data)} bytes): {error}") from None
    if score.ticks_per_quarter < 1:
        raise ValueError(f"damaged MIDI file: {score.ticks_per_quarter} ticks per beat; it must be at least 1.")
    tracks = [track for track in score.tracks if not (drop_drums and track.is_drum)]
    count = sum(len(track.notes) for track in tracks)
    if not count:
        dropped = sum(len(track.notes) for track in score.tracks)
        raise ValueError(f"a MIDI file without notes: {len(score.tracks)} tracks, {dropped} drum notes dropped.")
    if count > max_notes:
        raise ValueError(f"{count} notes are over the limit of {max_notes}.")
    return sort_notes(_rescale(np.concatenate([_columns(track) for track in tracks]), score.ticks_per_quarter))


def write_notes(notes: Int[Tensor, "n 4"], beats_per_minute: float = 120.0) -> bytes:
    """Return a MIDI file with one piano track in 4/4 that holds the notes.

    Raises:
        ValueError: a start is negative or beyond int32, a pitch or velocity is outside 0 to 127, or a duration is below 1.
    """
    table = notes.cpu().numpy()
    start, pitch, duration, velocity = table.T
    for name, column, low, high in (
        ("start", start, 0, MAX_TICK),
        ("pitch", pitch, 0, 127),
        ("duration", duration, 1, MAX_TICK),
        ("velocity", velocity, 1, 127),  # velocity 0 means the end of a note
    ):
        if len(column) and not low <= column.min() <= column.max() <= high:
            raise ValueError(f"{name} must be in [{low}, {high}], got {column.min()} to {column.max()}.")
    track: Any = symusic.Track("piano", 0, False)
    times, bytes_ = (start, duration), (pitch, velocity)
    track.notes = NoteTickList.from_numpy(*(x.astype(np.int32) for x in times), *(x.astype(np.int8) for x in bytes_))
    score: Any = symusic.Score(TICKS_PER_BEAT)
    score.time_signatures.append(symusic.TimeSignature(0, 4, 4))
    score.tempos.append(symusic.Tempo(0, beats_per_minute))
    score.tracks.append(track)
    return score.dumps_midi()


def sort_notes(notes: Int[Tensor, "n 4"]) -> Int[Tensor, "n 4"]:
    """Return the notes sorted by (start, pitch, duration, velocity)."""
    start, pitch, duration, velocity = notes.numpy().T
    return notes[torch.from_numpy(np.lexsort((velocity, duration, pitch, start)))]


def _columns(track: TrackTick) -> np.ndarray:
    notes = track.notes.numpy()
    return np.stack([notes[name].astype(np.int64) for name in ("time", "pitch", "duration", "velocity")], axis=1)


def _rescale(table: np.ndarray, ticks_per_beat: int) -> Tensor:
    times = [Column.START, Column.DURATION]
    table[:, times] = (2 * TICKS_PER_BEAT * table[:, times] + ticks_per_beat) // (2 * ticks_per_beat)  # nearest, halves up
    table[:, Column.DURATION] = table[:, Column.DURATION].clip(min=1)
    return torch.from_numpy(table)
