"""Files of segments: tables and JSON that say the same, and what is no such file."""

import json

import pytest

from multimodal.tokenizers.audio import SegmentReader

READ = SegmentReader(["speech", "music", "loud music"])


def rows(data: bytes) -> list[tuple[float, float, int]]:
    return list(zip(*(column.tolist() for column in READ(data)), strict=True))


@pytest.mark.parametrize(
    "data",
    [
        b"0.5\t1.25\tmusic\n1.25\t2\tloud music\n",
        b"start\tend\tlabel\r\n1.25\t2\tloud music\r\n\r\n0.5\t1.25\tmusic\r\n",
        b"\xef\xbb\xbf0.5 1.25 music\n1.25  2  loud music",
        json.dumps([{"start": 1.25, "end": 2, "label": "loud music"}, {"start": 0.5, "end": 1.25, "label": "music", "by": "x"}]).encode(),
    ],
)
def test_tables_and_json_say_the_same(data):
    assert rows(data) == [(0.5, 1.25, 1), (1.25, 2.0, 2)]


@pytest.mark.parametrize("data", [b"", b"\n \n", b"[]", b"onset\toffset\tevent"])
def test_there_may_be_no_segments(data):
    assert rows(data) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"0 1 music\n0.5 2 speech", "segments overlap: 'music' ends at 1 s, 'speech' starts at 0.5 s"),
        (b"1 1 music", "line 1 of the segments: the end 1 s is not after the start 1 s"),
        (b"2 1 music", "the end 1 s is not after the start 2 s"),
        (b"0 1 music\n1 2 noise", "line 2 of the segments: unknown class 'noise'; classes are speech, music, loud music"),
        (b"nan 1 music", "the start must be a number of seconds of at least 0, got 'nan'"),
        (b"0 inf music", "the end must be a number of seconds of at least 0, got 'inf'"),
        (b"-1 1 music", "the start must be a number"),
        (b"0\t1", "line 1 of the segments has 2 cells, not start, end and class"),
        (b"0\t1\tmusic\tx", "has 4 cells"),
        (b"once upon a time", "the start must be a number of seconds"),
        (b"\xff\xfe0", "segments must be text in UTF-8"),
        (b"[{]", "segments are not JSON"),
        (b"[" * 100_000, "segments are not JSON"),
        (b'{"start": 0}', "segments in JSON must be a list"),
        (b'[{"start": 0, "end": 1}]', "segment 1 must be an object with start, end and label"),
        (b'[{"start": NaN, "end": 1, "label": "music"}]', "segment 1: the start must be a number"),
        (b'[{"start": 0, "end": true, "label": "music"}]', "segment 1: the end must be a number"),
        (b'[{"start": 0, "end": 1' + b"0" * 400 + b', "label": "music"}]', "segment 1: the end must be a number"),
        (b'[{"start": 0, "end": 1, "label": ["music"]}]', "unknown class"),
        (b" " * (2**24 + 1), "are over 16777216"),
    ],
)
def test_bad_files_say_what_is_wrong(data, message):
    with pytest.raises(ValueError, match=message):
        READ(data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": []}, "classes"),
        ({"classes": "ab"}, "classes"),
        ({"classes": ["a", "a"]}, "classes"),
        ({"classes": ["a"], "fields": []}, "fields"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=f"{message} must be a list of different names"):
        SegmentReader(**settings)
