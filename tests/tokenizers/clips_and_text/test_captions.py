import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.tokenizers.clips_and_text.captions import Caption, is_timed, read_captions

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Take</i> the {\\an8}dough &amp; roll
it out.

2
00:01:03,250 --> 01:00:04,000  X1:40 X2:600
- <font color="#fff">Really?</font>
"""
VTT = """WEBVTT - made by hand
Kind: captions

STYLE
::cue { color: white }

NOTE a comment
00:00 is no time here

REGION
id:fred

intro
00:01.000 --> 00:02.500 align:start position:0%
<v Bob>Take</v> the <c.yellow>dough</c> &amp; roll
it <00:00:02.000>out.

01:03.250 --> 01:00:04.000
- Really?
"""
TOLD = [(1.0, 2.5, "Take the dough & roll it out."), (63.25, 3604.0, "- Really?")]
ROLLING = """WEBVTT

00:00:00.000 --> 00:00:02.000
take the dough

00:00:02.000 --> 00:00:02.010
take the dough

00:00:02.010 --> 00:00:04.000
take the dough
and roll it

00:00:04.000 --> 00:00:06.000
and roll it
out flat

00:00:08.000 --> 00:00:09.000
out flat
"""


def clock(seconds: float, mark: str) -> str:
    milliseconds = round(seconds * 1000)
    return f"{milliseconds // 3_600_000:02}:{milliseconds // 60_000 % 60:02}:{milliseconds // 1000 % 60:02}{mark}{milliseconds % 1000:03}"


@pytest.mark.parametrize("text", [SRT, VTT], ids=["SubRip", "WebVTT"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_both_kinds_say_the_same_however_lines_end(text: str, newline: str) -> None:
    assert read_captions(text.replace("\n", newline).encode()) == TOLD


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_marks_of_byte_order_are_understood(encoding: str) -> None:
    assert read_captions(SRT.encode(encoding)) == TOLD


def test_json_is_a_list_or_the_segments_of_a_recogniser() -> None:
    entries = [{"start": start, "end": end, "text": text, "id": 7} for start, end, text in TOLD]
    assert read_captions(json.dumps(entries).encode()) == TOLD
    assert read_captions(json.dumps({"text": "", "segments": entries}).encode()) == TOLD
    assert read_captions(b'{"segments": []}') == [] == read_captions(b"[]")


def test_a_number_without_an_empty_line_before_it_is_no_text() -> None:
    tight = b"1\n00:00:01,000 --> 00:00:02,000\nseven\n2\n00:00:02,000 --> 00:00:03,000\neight\n\n9\n"
    assert [caption.text for caption in read_captions(tight)] == ["seven", "eight"]


def test_an_empty_line_within_a_cue_of_subrip_does_not_end_it() -> None:
    assert read_captions(b"1\n00:00:01,000 --> 00:00:02,000\nseven\n\ngoes up\n") == [(1, 2, "seven goes up")]


def test_cues_are_sorted_and_those_of_no_length_or_text_left_out() -> None:
    text = "00:09.0 --> 00:10.0\nlate\n\n00:01.0 --> 00:05.0\nearly\n\n00:03.0 --> 00:03.0\nnever\n\n00:02.0 --> 00:06.0\n<i></i>\n"
    assert [caption.text for caption in read_captions(b"WEBVTT\n\n" + text.encode())] == ["early", "late"]


def test_rolling_captions_say_everything_once() -> None:
    found = read_captions(ROLLING.encode())
    assert [caption.text for caption in found] == ["take the dough", "and roll it", "out flat", "out flat"]
    assert found[-1].start == 8, "what is said again after a pause is said again"


def test_a_file_without_captions_has_none() -> None:
    assert read_captions(b"WEBVTT\n\nNOTE nobody speaks\n") == [] == read_captions(b"\n \n")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"1\n00:00:01,000 --> 00:00:61,000\nx", "line 2 of the captions is no time"),
        (b"\n1\n00:00:03,000 --> 00:00:01,000\nx", "line 3 of the captions ends at 1 s, before it starts at 3 s"),
        (b"a letter to my love", "no captions: not one line"),
        (b"\xff\x00\xff\x00" * 3, "captions must be text in UTF-8"),
        (b'[{"start": 1, "end": 2}]', "caption 1 must be an object with start, end and text"),
        (b'[{"start": 1, "end": 2, "text": "a"}, {"start": NaN, "end": 2, "text": "a"}]', "caption 2: start must be seconds"),
        (b'[{"start": 1, "end": true, "text": "a"}]', "caption 1: end must be seconds, at least 0; got 'True'"),
        (b'[{"start": 3, "end": 2, "text": "a"}]', "caption 1 ends at 2 s, before it starts at 3 s"),
        (b'[{"start": 1, "end"', "captions are not JSON"),
        (b'{"text": "hello"}', "captions in JSON must be a list"),
        (b"[" * 100_000 + b"{", "no captions"),
        (b"[{" + b'"a":[' * 100_000, "captions are not JSON"),
        (b" " * (2**24 + 1), "captions of 16777217 bytes are over"),
    ],
)
def test_what_cannot_be_read_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_captions(data)


def test_a_text_that_tells_no_times_is_no_file_of_captions() -> None:
    assert not is_timed("[Music] a letter to my love\nwent from a --> b at 10:20")
    assert is_timed(SRT) and is_timed(VTT) and is_timed("[]") and is_timed('{"segments": []}')


times = st.lists(st.tuples(st.integers(0, 360_000_000), st.integers(1, 100_000)), min_size=1, max_size=8)


@given(times, st.sampled_from([",", "."]))
def test_times_come_back_in_order(spans: list[tuple[int, int]], mark: str) -> None:
    said = [Caption(start / 1000, (start + length) / 1000, f"say {number}") for number, (start, length) in enumerate(spans)]
    cues = [f"{clock(start, mark)} --> {clock(end, mark)}\n{text}\n" for start, end, text in said]
    header = "WEBVTT\n\n" if mark == "." else ""
    found = read_captions((header + "\n".join(cues)).encode())
    assert found == sorted(said, key=lambda caption: caption[:2])


@given(st.text(alphabet='0123456789:,.->\n WEBVTNOa[]{}"', max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = read_captions(text.encode())
    except ValueError:
        return
    assert all(caption.end > caption.start >= 0 and caption.text for caption in found)
