import struct

import pytest
import symusic
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.tokenizers.midi import Column, Score, read_notes, read_score, sort_notes, write_notes, write_score

NOTES = torch.tensor([[0, 60, 480, 80], [0, 64, 240, 70], [480, 62, 120, 90], [960, 60, 960, 1]])


def midi_file(chunk: bytes, ticks_per_beat: int = 480, tracks: int = 1) -> bytes:
    """A MIDI file written by hand: header and one track of raw events."""
    header = b"MThd" + struct.pack(">IHHH", 6, 1, tracks, ticks_per_beat)
    return header + b"MTrk" + struct.pack(">I", len(chunk)) + chunk


def variable(number: int) -> bytes:
    parts = [number & 0x7F]
    while number := number >> 7:
        parts.append(number & 0x7F | 0x80)
    return bytes(reversed(parts))


END = b"\x00\xff\x2f\x00"


def one_note(start: int, duration: int, channel: int = 0) -> bytes:
    return variable(start) + bytes([0x90 | channel, 60, 64]) + variable(duration) + bytes([0x80 | channel, 60, 0]) + END


def test_written_notes_are_read_back() -> None:
    assert torch.equal(read_notes(write_notes(NOTES)), NOTES)


@pytest.mark.parametrize("ticks_per_beat", [24, 96, 220, 480, 960, 32767])
def test_any_resolution_becomes_480_ticks_per_beat(ticks_per_beat: int) -> None:
    data = midi_file(one_note(3 * ticks_per_beat, 2 * ticks_per_beat), ticks_per_beat)
    assert read_notes(data).tolist() == [[1440, 60, 960, 64]]


def test_times_round_to_the_nearest_tick_halves_up_and_durations_never_vanish() -> None:
    assert read_notes(midi_file(one_note(3, 1), 960)).tolist() == [[2, 60, 1, 64]]  # 1.5 -> 2, 0.5 -> 1
    assert read_notes(midi_file(one_note(7, 1), 9600)).tolist() == [[0, 60, 1, 64]]  # 0.35 -> 0, 0.05 -> at least 1
    assert read_notes(midi_file(one_note(1, 2), 220)).tolist() == [[2, 60, 4, 64]]  # 2.18, 4.36


def test_tracks_are_merged_in_order() -> None:
    score = symusic.Score.from_midi(write_notes(NOTES[2:]))
    score.tracks.append(symusic.Score.from_midi(write_notes(NOTES[:2])).tracks[0])
    assert torch.equal(read_notes(score.dumps_midi()), NOTES)


def test_drums_are_dropped_unless_wanted() -> None:
    data = midi_file(one_note(0, 480, channel=9))
    assert len(read_notes(data, drop_drums=False)) == 1
    with pytest.raises(ValueError, match="1 drum notes dropped"):
        read_notes(data)


def test_limits() -> None:
    data = write_notes(NOTES)
    assert len(read_notes(data, max_notes=4, max_bytes=len(data))) == 4
    with pytest.raises(ValueError, match="4 notes are over the limit of 3"):
        read_notes(data, max_notes=3)
    with pytest.raises(ValueError, match=f"{len(data)} bytes is over the limit of {len(data) - 1}"):
        read_notes(data, max_bytes=len(data) - 1)


@pytest.mark.parametrize(("kind", "tracks", "expected"), [(0, 1, [60]), (1, 2, [60, 61]), (2, 1, [60])])
def test_tracks_that_belong_together_are_one_piece(kind: int, tracks: int, expected: list[int]) -> None:
    chunks = [variable(0) + bytes([0x90, 60 + track, 64]) + variable(480) + bytes([0x80, 60 + track, 0]) + END for track in range(tracks)]
    data = b"MThd" + struct.pack(">IHHH", 6, kind, tracks, 480) + b"".join(b"MTrk" + struct.pack(">I", len(c)) + c for c in chunks)
    assert read_notes(data)[:, Column.PITCH].tolist() == expected


def test_independent_pieces_in_one_file_are_refused() -> None:
    track = b"MTrk" + struct.pack(">I", len(one_note(0, 480))) + one_note(0, 480)
    with pytest.raises(ValueError, match="type 2 with 2 independent pieces"):
        read_notes(b"MThd" + struct.pack(">IHHH", 6, 2, 2, 480) + track + track)


GOOD = write_notes(NOTES)
HOSTILE = {
    "empty": (b"", "damaged"),
    "text": (b"a letter to my love\n" * 50, "damaged"),
    "random bytes": (
        torch.randint(256, (3000,), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy().tobytes(),
        "damaged",
    ),
    "header only": (GOOD[:14], "without notes"),
    "half a header": (GOOD[:9], "damaged"),
    "truncated": (GOOD[: len(GOOD) // 2], "damaged"),
    "last byte missing": (GOOD[:-1], "damaged"),
    "lying length": (GOOD[:18] + struct.pack(">I", 10**9) + GOOD[22:], "damaged"),
    "ticks 0": (midi_file(one_note(0, 480), 0), "0 ticks per beat"),
    "SMPTE time": (midi_file(one_note(0, 480), 0xE728), "damaged"),
    "no notes": (midi_file(END), "without notes"),
    "note never ended": (midi_file(b"\x00\x90\x3c\x40" + END), "without notes"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(case: str) -> None:
    data, message = HOSTILE[case]
    with pytest.raises(ValueError, match=message):
        read_notes(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(GOOD)), st.integers(0, len(GOOD)))
def test_no_bytes_raise_anything_but_a_value_error(junk: bytes, first: int, last: int) -> None:
    try:
        notes = read_notes(GOOD[:first] + junk + GOOD[last:])
    except ValueError:
        return
    assert notes.dtype == torch.int64 and len(notes) > 0
    assert (notes[:, Column.DURATION] >= 1).all() and (notes[:, Column.START] >= 0).all()
    assert (notes[:, Column.PITCH] >= 0).all() and (notes[:, Column.PITCH] <= 127).all()


@pytest.mark.parametrize(
    ("column", "value", "name"), [(0, -1, "start"), (1, 128, "pitch"), (2, 0, "duration"), (3, 0, "velocity"), (0, 2**31, "start")]
)
def test_notes_that_midi_cannot_hold_are_not_written(column: int, value: int, name: str) -> None:
    notes = NOTES.clone()
    notes[1, column] = value
    with pytest.raises(ValueError, match=name):
        write_notes(notes)


def test_sort_is_by_start_then_pitch() -> None:
    assert torch.equal(sort_notes(NOTES[[3, 1, 0, 2]]), NOTES)


def test_notes_that_start_together_are_in_the_order_of_their_tracks() -> None:
    rows = [[0, 50, 480, 80, 5, 1], [0, 70, 480, 80, 0, 0], [0, 70, 240, 80, 0, 0], [0, 40, 480, 80, 5, 1], [0, 45, 480, 90, 0, 2]]
    score = read_score(write_score(Score(torch.tensor(rows))))
    assert score.notes.tolist() == [rows[2], rows[1], rows[3], rows[0], rows[4]]


def test_tempos_and_metres_are_in_the_order_of_time() -> None:
    score = Score(torch.tensor([[0, 60, 1, 80, 0, 0]]), torch.tensor([[480, 1], [0, 2]]), torch.tensor([[960, 3, 4], [0, 6, 8]]))
    read = read_score(write_score(score))
    assert read.tempos.tolist() == [[0, 2], [480, 1]] and read.metres.tolist() == [[0, 6, 8], [960, 3, 4]]
