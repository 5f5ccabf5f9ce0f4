"""MIDI files <-> scores: notes, tempos and metres as columns.

All times are in ticks, 480 to a beat (a quarter note), whatever the file's resolution. Letters in shapes: n notes, t tempos, m metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from operator import itemgetter
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
DRUMS = 128
"""The program of drum tracks, above those of MIDI."""
BEATS_PER_MINUTE = 120.0
MICROSECONDS = 60_000_000
METRE = (4, 4)


class Column(IntEnum):
    """Columns of a table of notes."""

    START = 0
    PITCH = 1
    DURATION = 2
    VELOCITY = 3
    PROGRAM = 4
    TRACK = 5


def _no_changes() -> Tensor:
    return torch.zeros(0, 2, dtype=torch.int64)


def _no_metres() -> Tensor:
    return torch.zeros(0, 3, dtype=torch.int64)


@dataclass(frozen=True)
class Score:
    """A piece of music.

    Args:
        notes: ``(n, 6)`` int64 with the columns of ``Column``, sorted by start; as they are read from a file, those that start together by
            track, then pitch, duration, velocity. Programs are those of MIDI from 0, and ``DRUMS``; tracks are numbered from 0 among those
            with notes.
        tempos: ``(t, 2)`` int64 by tick: from which tick on how many microseconds a beat takes; before the first 500,000 (120 a minute).
        metres: ``(m, 3)`` int64 by tick: from which tick on, numerator, denominator (a power of 2); before the first 4/4.
        track_names: of the tracks, where known.
        numbers: ``(n,)`` int64, which note of the file each is, so that labels of notes find them again; None: not known.
    """

    notes: Int[Tensor, "n 6"]
    tempos: Int[Tensor, "t 2"] = field(default_factory=_no_changes)
    metres: Int[Tensor, "m 3"] = field(default_factory=_no_metres)
    track_names: tuple[str, ...] = ()
    numbers: Int[Tensor, " n"] | None = None

    def __len__(self) -> int:
        """Return the number of notes."""
        return len(self.notes)

    def __getitem__(self, chosen: slice | Tensor) -> Score:
        """Return the score with some of its notes; tempos and metres stay. ``chosen``: a slice, or ``(n,)`` bool."""
        return replace(self, notes=self.notes[chosen], numbers=None if self.numbers is None else self.numbers[chosen])

    def with_notes(self, notes: Int[Tensor, "n 6"]) -> Score:
        """Return the score with other notes, which need not be sorted; as many as there were keep their numbers."""
        order = order_of(notes)
        numbers = self.numbers[order] if self.numbers is not None and len(self.numbers) == len(notes) else None
        return replace(self, notes=notes[order], numbers=numbers)

    def column(self, column: Column) -> Int[Tensor, " n"]:
        """Return one column of the notes."""
        return self.notes[:, column]


def read_score(data: bytes, drop_drums: bool = True, max_notes: int = 1_000_000, max_bytes: int = 2**26) -> Score:
    """Return what a MIDI file holds; notes of all tracks are merged, and say which they are from.

    Times are rescaled to 480 ticks per beat: starts and durations each to the nearest tick, halves up, durations to at least 1.
    Controls, pedals, pitch bends and lyrics are left out; so are metres whose denominator is no power of 2 or whose numerator is 0.

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
    found = from_symusic(score, drop_drums, max_notes)
    if not len(found):
        dropped = sum(len(track.notes) for track in score.tracks)
        raise ValueError(f"a MIDI file without notes: {len(score.tracks)} tracks, {dropped} drum notes dropped.")
    return found


def from_symusic(score: Any, drop_drums: bool = False, max_notes: int = 1_000_000) -> Score:
    """Return what a ``symusic.Score`` in ticks holds; see ``read_score``.

    Args:
        score: in ticks of any number to a beat.
        drop_drums: whether notes of drum tracks are left out.
        max_notes: limit of what is left.

    Raises:
        ValueError: it has more than ``max_notes`` notes.
    """
    tracks = [track for track in score.tracks if len(track.notes) and not (drop_drums and track.is_drum)]
    count = sum(len(track.notes) for track in tracks)
    if count > max_notes:
        raise ValueError(f"{count} notes are over the limit of {max_notes}.")
    table = table_of(tracks, score.ticks_per_quarter)
    tempos = _by_time([(x.time, x.mspq) for x in score.tempos if x.mspq > 0], 2, score.ticks_per_quarter)
    signatures = ((x.time, x.numerator, x.denominator) for x in score.time_signatures)
    metres = _by_time([row for row in signatures if row[1] > 0 and row[2] > 0 and row[2] & (row[2] - 1) == 0], 3, score.ticks_per_quarter)
    return Score(torch.from_numpy(_in_order(table).T), tempos, metres, tuple(track.name for track in tracks))


def table_of(tracks: Sequence[Any], ticks_per_beat: int) -> Int[np.ndarray, "6 n"]:
    """Return the rows of ``Column`` of the notes of tracks of symusic, one track after the other, in the order that they have there.

    Args:
        tracks: of a ``symusic.Score``.
        ticks_per_beat: of that score; the times that are returned have 480.
    """
    table = np.empty((len(Column), sum(len(track.notes) for track in tracks)), np.int64)
    first = 0
    for number, track in enumerate(tracks):
        _fill(table[:, first : first + len(track.notes)], track, number)
        first += len(track.notes)
    if ticks_per_beat != TICKS_PER_BEAT:
        times = [Column.START, Column.DURATION]
        table[times] = _rescaled(table[times], ticks_per_beat)
    np.maximum(table[Column.DURATION], 1, out=table[Column.DURATION])
    return table


def write_score(score: Score) -> bytes:
    """Return a MIDI file with a track for each pair of track and program of the notes.

    Raises:
        ValueError: a start is negative or beyond int32, a pitch or velocity is outside 0 to 127, a duration is below 1, or a program is
            unknown.
    """
    return to_symusic(score).dumps_midi()


def to_symusic(score: Score) -> Any:
    """Return a ``symusic.Score`` of 480 ticks a beat, with a track for each pair of track and program.

    Raises:
        ValueError: as ``write_score``.
    """
    table = score.notes.cpu().numpy()
    for name, column, low, high in (
        ("start", Column.START, 0, MAX_TICK),
        ("pitch", Column.PITCH, 0, 127),
        ("duration", Column.DURATION, 1, MAX_TICK),
        ("velocity", Column.VELOCITY, 1, 127),  # velocity 0 means the end of a note
        ("program", Column.PROGRAM, 0, DRUMS),
    ):
        values = table[:, column]
        if len(values) and not low <= values.min() <= values.max() <= high:
            raise ValueError(f"{name} must be in [{low}, {high}], got {values.min()} to {values.max()}.")
    written: Any = symusic.Score(TICKS_PER_BEAT)
    for tick, numerator, denominator in score.metres.tolist() or [(0, *METRE)]:
        written.time_signatures.append(symusic.TimeSignature(tick, numerator, denominator))
    for tick, microseconds in score.tempos.tolist() or [(0, round(MICROSECONDS / BEATS_PER_MINUTE))]:
        written.tempos.append(symusic.Tempo(tick, mspq=microseconds))
    for track, program in np.unique(table[:, [Column.TRACK, Column.PROGRAM]], axis=0).tolist():
        own = table[(table[:, Column.TRACK] == track) & (table[:, Column.PROGRAM] == program)]
        written.tracks.append(_track(own, program, score.track_names[track] if 0 <= track < len(score.track_names) else ""))
    return written


def sort_notes(notes: Int[Tensor, "n k"]) -> Int[Tensor, "n k"]:
    """Return the notes in the order of ``order_of``."""
    return notes[order_of(notes)]


def order_of(notes: Int[Tensor, "n k"]) -> Int[Tensor, " n"]:
    """Return the order by start, then track (so that voices that start together keep their order), then the other columns as they lie."""
    start, *rest = notes.numpy().T
    return torch.from_numpy(np.lexsort([*reversed(rest[: Column.PROGRAM]), *rest[Column.PROGRAM :], start]))


def _fill(table: np.ndarray, track: TrackTick, number: int) -> None:
    """Write the notes of a track into the rows of a table, one for each ``Column``."""
    notes = track.notes.numpy()
    table[Column.START], table[Column.PITCH] = notes["time"], notes["pitch"]
    table[Column.DURATION], table[Column.VELOCITY] = notes["duration"], notes["velocity"]
    table[Column.PROGRAM], table[Column.TRACK] = DRUMS if track.is_drum else track.program, number


def _in_order(table: np.ndarray) -> np.ndarray:
    """Return notes in the order of ``order_of``; starts have at most 40 bits, tracks 16."""
    key = (table[Column.START] << 23) + (table[Column.TRACK] << 7) + table[Column.PITCH]
    if (key[1:] > key[:-1]).all():
        return table
    order = key.argsort(kind="stable")
    key = key[order]
    if (key[1:] == key[:-1]).any():  # the other columns decide
        order = order_of(torch.from_numpy(table.T)).numpy()
    return table[:, order]


def _by_time(rows: list[tuple[int, ...]], width: int, ticks_per_beat: int) -> Tensor:
    """Return rows by their first number, a time, which is rescaled."""
    table = np.array(sorted(rows, key=itemgetter(0)) if len(rows) > 1 else rows, np.int64).reshape(-1, width)
    if ticks_per_beat != TICKS_PER_BEAT:
        table[:, 0] = _rescaled(table[:, 0], ticks_per_beat)
    return torch.from_numpy(table)


def _rescaled(ticks: np.ndarray, ticks_per_beat: int) -> np.ndarray:
    return (2 * TICKS_PER_BEAT * ticks + ticks_per_beat) // (2 * ticks_per_beat)  # nearest, halves up


def _track(table: np.ndarray, program: int, name: str) -> Any:
    is_drum = program == DRUMS
    track: Any = symusic.Track(name or ("drums" if is_drum else ""), 0 if is_drum else program, is_drum)
    times, bytes_ = (
        (table[:, column] for column in columns) for columns in ((Column.START, Column.DURATION), (Column.PITCH, Column.VELOCITY))
    )
    track.notes = NoteTickList.from_numpy(*(x.astype(np.int32) for x in times), *(x.astype(np.int8) for x in bytes_))
    return track
