"""Containers are told by their contents, and a file that ends before its media is refused, wherever it was cut."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.tokenizers.containers import check_complete, container_of
from tests.tokenizers.zoo import CONCATENATION, PLAYLIST, PROSE, ZOO, film, muxed_sound, sound

FILES = {
    "wav": sound("WAV", "PCM_16"),
    "aiff": sound("AIFF", "PCM_16"),
    "ogg": sound("OGG", "VORBIS"),
    "mov": film(),
    "matroska": film("matroska"),
    "avi": film("avi", "mpeg4"),
}
OTHERS = {
    "flac": sound("FLAC", "PCM_16"),
    "mp3": sound("MP3", "MPEG_LAYER_III"),
    "mpeg": film("mpeg", "mpeg2video"),
    "mpegts": film("mpegts"),
    "aac": muxed_sound("adts"),
    "gsm": bytes([0xD1] + [7] * 32) * 20,
}


@pytest.mark.parametrize("name", [*FILES, *OTHERS])
def test_whole_files_are_known_and_complete(name):
    data = (FILES | OTHERS)[name]
    assert container_of(data) == name
    check_complete(data)


@pytest.mark.parametrize(
    "data", [b"", PROSE, PLAYLIST, CONCATENATION, b"RIFF\0\0\0\0sfbk", ZOO["jpeg"].make()], ids=lambda data: repr(data[:8])
)
def test_other_files_are_not_known(data):
    assert container_of(data) is None
    check_complete(data)


@pytest.mark.parametrize("name", ["wav", "aiff", "matroska"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_cut_in_the_media_is_seen(name, data):
    whole = FILES[name]
    end = data.draw(st.integers(200, len(whole) - 1))
    with pytest.raises(ValueError, match=r"cut off: \d+ of the \d+ bytes"):
        check_complete(whole[:end])


def test_the_message_says_what_is_there_and_what_is_announced():
    with pytest.raises(ValueError, match="cut off: 956 of the 44100 bytes that its part 'data' announces are there"):
        check_complete(FILES["wav"][:1000])


def test_a_film_without_its_index_is_whole():
    start = FILES["avi"].index(b"idx1")
    check_complete(FILES["avi"][:start])
    with pytest.raises(ValueError, match="'LIST'"):
        check_complete(FILES["avi"][: start - 9])


def test_a_page_that_ends_early_is_seen():
    for end in (len(FILES["ogg"]) - 1, FILES["ogg"].rindex(b"OggS") + 10):
        with pytest.raises(ValueError, match="last page would end at"):
            check_complete(FILES["ogg"][:end])


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_lengths_that_pipes_write_are_unknown(size):
    data = bytearray(FILES["wav"])
    struct.pack_into("<I", data, 40, size)
    check_complete(bytes(data[:1000]))


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"RIFF\0\0\0\0WAVE", b"FORM\0\0\0\0AIFF", b"OggS", b"\x1aE\xdf\xa3", b"\0\0\0\x08ftyp"])
)
def test_no_bytes_raise_anything_but_a_value_error(junk, start):
    try:
        check_complete(start + junk)
    except ValueError:
        return
