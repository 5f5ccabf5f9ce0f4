"""Files of captions -> what is said, and when: SubRip (SRT), WebVTT, JSON."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

MAX_BYTES = 2**24
TIME = r"(?:(\d+):)?([0-5]?\d):([0-5]\d)(?:[.,](\d{1,3}))?"
TIMING = re.compile(rf"\s*{TIME}\s*-->\s*{TIME}(?:\s.*)?")
"""From when to when; WebVTT's settings and SubRip's coordinates may follow."""
ARROW = "-->"
WEBVTT, ASIDE = "WEBVTT", ("NOTE", "STYLE", "REGION")
JSON_START = re.compile(r"\s*(?:\[\s*[{\]]|\{\s*[\"}])")
TAG = re.compile(r"</?[A-Za-z0-9][^<>]*>|\{\\[^{}]*\}")
"""Of HTML, of WebVTT (voices, classes, times of words), and of SubStation Alpha."""
MAX_PAUSE_S = 0.1
"""Between two cues of rolling captions."""


class Caption(NamedTuple):
    """What is said in a stretch of a film.

    Args:
        start: seconds from the start of the film.
        end: seconds, after ``start``.
        text: without tags and line breaks, not empty.
    """

    start: float
    end: float
    text: str


class Cue(NamedTuple):
    """An entry of a file: the times in seconds, and the lines that are shown."""

    start: float
    end: float
    lines: list[str]


def read_captions(data: bytes) -> list[Caption]:
    """Return the captions of a file, in order of time. None where a file has none, such as one with WebVTT's first line alone.

    What kind of file it is, its content tells. WebVTT begins with that word; JSON is a list of objects with ``start`` and ``end`` in
    seconds and ``text``, or an object with such a list as ``segments`` (Whisper); all else is SubRip. Tags are taken out, cues of no length
    or no text are left out. Captions may overlap. Lines that a cue repeats from the one that it follows without a pause are left out: so
    rolling captions say everything once.

    Raises:
        ValueError: the file is over 16 MiB, neither UTF-8 nor UTF-16 with its mark, or not of these kinds; a time that cannot be read, or
            an end before its start; the message names the line, or the number of the caption.
    """
    text = _characters(data)
    if JSON_START.match(text):
        cues = list(_objects(text))
    else:
        cues = list(_cues(text))
        if not cues and text.strip() and not text.startswith(WEBVTT):
            raise ValueError(f"no captions: not one line says from when to when ('00:00:01,000 {ARROW} 00:00:02,500'), nor is it JSON.")
    cues = sorted((cue for cue in cues if cue.end > cue.start), key=lambda cue: (cue.start, cue.end))
    found = [Caption(start, end, " ".join(lines)) for start, end, lines in _without_repeats(cues)]
    return [caption for caption in found if caption.text]


def is_timed(text: str) -> bool:
    """Return whether a text is a file of captions, and not one without times."""
    return text.startswith(WEBVTT) or bool(JSON_START.match(text)) or any(TIMING.fullmatch(line) for line in text.splitlines())


def _characters(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise ValueError(f"captions of {len(data)} bytes are over {MAX_BYTES}.")
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"captions must be text in UTF-8: {error}.") from None


def _cues(text: str) -> Iterator[Cue]:
    """Yield the cues of SubRip or WebVTT; those of SubRip may have empty lines in their text."""
    vtt = text.startswith(WEBVTT)
    cue: Cue | None = None
    inside, aside = False, vtt  # of a cue; of a header or a note, up to an empty line
    for number, line in enumerate(text.split("\n"), 1):
        if match := None if aside else TIMING.fullmatch(line):
            if cue is not None:
                yield _without_number(cue, vtt, inside)
            cue, inside = Cue(*_times(number, match), []), True
        elif not line.strip():
            inside = aside = False
        elif inside and cue is not None:
            cue.lines.append(line)
        elif not aside:
            aside = vtt and line.startswith(ASIDE)
            if ARROW in line and not aside:
                raise ValueError(
                    f"line {number} of the captions is no time of the form '00:00:01,000 {ARROW} 00:00:02,500': {line[:60]!r}."
                )
            if cue is not None and not vtt and not line.strip().isdecimal():
                cue.lines.append(line)
    if cue is not None:
        yield cue


def _without_number(cue: Cue, vtt: bool, inside: bool) -> Cue:
    """Return a cue without the number of the next one, where no empty line is between them."""
    if not vtt and inside and cue.lines and cue.lines[-1].strip().isdecimal():
        cue.lines.pop()
    return cue


def _times(number: int, match: re.Match[str]) -> tuple[float, float]:
    start, end = (_seconds(*match.groups()[i : i + 4]) for i in (0, 4))
    if end < start:
        raise ValueError(f"line {number} of the captions ends at {end:g} s, before it starts at {start:g} s.")
    return start, end


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    milliseconds = int((fraction or "").ljust(3, "0"))
    return ((int(hours or 0) * 60 + int(minutes)) * 60_000 + int(seconds) * 1000 + milliseconds) / 1000


def _objects(text: str) -> Iterator[Cue]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"captions are not JSON ({error}).") from None
    entries = content.get("segments") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise ValueError(
            "captions in JSON must be a list of objects with start, end and text, or an object with such a list as 'segments'."
        )
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or not {"start", "end", "text"} <= entry.keys() or not isinstance(entry["text"], str):
            raise ValueError(f"caption {number} must be an object with start, end and text, got {str(entry)[:60]!r}.")
        start, end = (_number(number, name, entry[name]) for name in ("start", "end"))
        if end < start:
            raise ValueError(f"caption {number} ends at {end:g} s, before it starts at {start:g} s.")
        yield Cue(start, end, entry["text"].splitlines())


def _number(caption: int, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"caption {caption}: {name} must be seconds, at least 0; got {str(value)[:60]!r}.")
    return float(value)


def _without_repeats(cues: list[Cue]) -> Iterator[Cue]:
    """Yield the cues, of those that repeat the last lines of the one before only the rest."""
    shown: list[str] = []
    shown_until = -math.inf
    for start, end, raw in cues:
        lines = [line for line in map(_plain, raw) if line]
        overlap = 0
        if start <= shown_until + MAX_PAUSE_S:
            overlap = max(k for k in range(min(len(shown), len(lines)) + 1) if shown[len(shown) - k :] == lines[:k])
        yield Cue(start, end, lines[overlap:])
        shown, shown_until = lines or shown, max(end, shown_until)


def _plain(line: str) -> str:
    return " ".join(html.unescape(TAG.sub("", line)).split())
