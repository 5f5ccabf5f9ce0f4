"""Measurements of a MIDI file."""

from __future__ import annotations

from typing import Any

import symusic

from multimodal.tokenizers.midi.notes import TICKS_PER_BEAT, Column, read_notes


def describe_notes(data: bytes, drop_drums: bool = True, max_notes: int = 1_000_000, max_bytes: int = 2**26) -> dict[str, float]:
    """Return the number of notes and of tracks, the length in beats, and the lowest and the highest pitch.

    Args:
        data: the file.
        drop_drums: count only what is no drum.
        max_notes: files with more notes are refused.
        max_bytes: of the file, at most.

    Raises:
        ValueError: as ``read_notes``.
    """
    notes = read_notes(data, drop_drums, max_notes, max_bytes)
    score: Any = symusic.Score.from_midi(data)  # its stubs know no tracks
    tracks = [track for track in score.tracks if len(track.notes) and not (drop_drums and track.is_drum)]
    end = int((notes[:, Column.START] + notes[:, Column.DURATION]).max())
    pitch = notes[:, Column.PITCH]
    return {
        "notes": len(notes),
        "tracks": len(tracks),
        "beats": end / TICKS_PER_BEAT,
        "lowest pitch": int(pitch.min()),
        "highest pitch": int(pitch.max()),
    }
