"""Measurements of a MIDI file."""

from __future__ import annotations

from multimodal.tokenizers.midi.score import TICKS_PER_BEAT, Column, read_score


def describe_notes(data: bytes, drop_drums: bool = True, max_notes: int = 1_000_000, max_bytes: int = 2**26) -> dict[str, float]:
    """Return the number of notes and of tracks, the length in beats, and the lowest and the highest pitch.

    Args:
        data: the file.
        drop_drums: count only what is no drum.
        max_notes: files with more notes are refused.
        max_bytes: of the file, at most.

    Raises:
        ValueError: as ``read_score``.
    """
    score = read_score(data, drop_drums, max_notes, max_bytes)
    pitch, ends = score.column(Column.PITCH), score.column(Column.START) + score.column(Column.DURATION)
    return {
        "notes": len(score),
        "tracks": len(score.column(Column.TRACK).unique()),
        "beats": int(ends.max()) / TICKS_PER_BEAT,
        "lowest pitch": int(pitch.min()),
        "highest pitch": int(pitch.max()),
    }
