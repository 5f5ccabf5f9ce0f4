"""Hostile MIDI files through every tokenizer: ids of its vocabularies, or a ValueError."""

import struct
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.tokenizers.midi import CompoundTokenizer, MidiTransform, OctupleTokenizer, RemiTokenizer, read_score, score_of, write_notes
from tests.tokenizers.midi.real import real_files
from tests.tokenizers.midi.test_compound_settings import EVERYTHING
from tests.tokenizers.zoo import MUSIC, ZOO

TOKENIZERS = {
    "compound words": CompoundTokenizer(),
    "compound words with everything": CompoundTokenizer(**EVERYTHING),
    "remi": RemiTokenizer(),
    "remi with everything": RemiTokenizer(**EVERYTHING),
    "octuples": OctupleTokenizer(),
}
GOOD = write_notes(torch.tensor([[0, 60, 480, 80], [0, 64, 240, 70], [480, 62, 120, 90], [960, 60, 960, 1]]))
MOST_METRES = b"".join(b"\x01\xff\x58\x04" + bytes([1 + i % 7, i % 9, 24, 8]) for i in range(20_000))


def file_of(events: bytes, ticks: int = 480) -> bytes:
    track = events + b"\0\xff\x2f\0"
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, ticks) + b"MTrk" + struct.pack(">I", len(track)) + track


NOTE = b"\x00\x90\x3c\x40\x60\x80\x3c\x00"
LATE = b"\xff\xff\xff\x7f"
"""The longest time before an event: 2^28 - 1 ticks."""
MORE = {
    "20,000 changes of metre": lambda: file_of(NOTE + MOST_METRES + NOTE),
    "a note after 800 million beats": lambda: file_of(NOTE + LATE + NOTE[1:] + (LATE + b"\xff\x01\x00") * 3 + NOTE, ticks=1),
    "bars of a 64th, and a note far off": lambda: file_of(b"\x00\xff\x58\x04\x01\x06\x18\x08" + NOTE + (LATE + b"\xff\x01\x00") * 6 + NOTE),
    "a metre of 255 whole notes": lambda: file_of(b"\x00\xff\x58\x04\xff\x00\x18\x08" + NOTE * 20),
    "a tempo of 0": lambda: file_of(b"\x00\xff\x51\x03\x00\x00\x00" + NOTE * 20),
    "the slowest tempo": lambda: file_of(b"\x00\xff\x51\x03\xff\xff\xff" + NOTE * 20),
    "a metre over a 128th": lambda: file_of(b"\x00\xff\x58\x04\x03\x07\x18\x08" + NOTE * 20),
    "a real piece, cut": lambda: real_files()["omr/k525short"][:-100],
}


def ids_of(name: str, data: bytes) -> torch.Tensor:
    tokenizer = TOKENIZERS[name]
    transform = MidiTransform(tokenizer, min_notes=1, max_notes=512)
    decoded = transform.decode(data)
    for train in (False, True):
        ids = transform(decoded, torch.Generator().manual_seed(0), train).values
        assert len(ids) and (ids >= 0).all() and (ids < torch.tensor(tokenizer.vocab_sizes).squeeze()).all()
    assert len(tokenizer.note_of(ids)) == len(ids)
    return ids


@cache
def zoo_file(case: str) -> bytes:
    return ZOO[case].make()


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("case", MUSIC)
def test_the_zoo(case: str, name: str) -> None:
    expected = ZOO[case].expected
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            ids_of(name, zoo_file(case))
    else:
        assert len(ids_of(name, zoo_file(case))) >= 8


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("case", MORE)
def test_what_is_rare_gives_ids_or_our_error(case: str, name: str) -> None:
    try:
        ids_of(name, MORE[case]())
    except ValueError as error:
        assert str(error) and case in ("a metre over a 128th", "20,000 changes of metre", "a real piece, cut")


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40, deadline=None)
@given(junk=st.binary(max_size=60), first=st.integers(0, len(GOOD)), last=st.integers(0, len(GOOD)))
def test_no_bytes_raise_anything_but_a_value_error(name: str, junk: bytes, first: int, last: int) -> None:
    try:
        ids_of(name, GOOD[:first] + junk + GOOD[last:])
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_whole_real_piece_comes_back_as_its_tokens_say(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    for data in (real_files()["omr/k525MIDIMvt1"], write_notes(score_of(read_score(GOOD).notes[:, :4]).notes[:, :4])):
        score = tokenizer.restrict(read_score(data))
        ids = tokenizer.encode_score(score)
        back = tokenizer.decode_score(ids)
        assert torch.equal(back.notes, tokenizer.snapped(score).notes) and torch.equal(tokenizer.encode_score(back), ids)
        assert read_score(tokenizer.file_of(ids)[1], drop_drums=False).notes[:, 0].tolist() == back.notes[:, 0].tolist()
