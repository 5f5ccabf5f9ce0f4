"""Which container holds the bytes of a sound or a film, and whether it was cut off.

Decoders return what is left of a file that was cut off, without a word. Most containers announce how many bytes of media follow, so a look
at their outer structure tells, without decoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

UNKNOWN_BYTES = 0x7FFF0000  # what programs write into a pipe announce at least this, as they cannot go back
EBML_SEGMENT = 0x18538067
GSM_FRAME_BYTES = 33
BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
SIGNATURES = (
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"ID3", "mp3"),
    (b"\0\0\1\xba", "mpeg"),
    (b"\0\0\1\xb3", "mpegvideo"),
)
RIFF_FORMS = {b"WAVE": "wav", b"AVI ": "avi", b"AIFF": "aiff", b"AIFC": "aiff"}


class Part(NamedTuple):
    """A chunk, box or element of a container.

    Args:
        name: its four letters.
        start: of its content, in bytes.
        announced: bytes of content that its header says; None: unknown.
    """

    name: bytes
    start: int
    announced: int | None


def container_of(data: bytes) -> str | None:
    """Return FFmpeg's name of the container that the first bytes tell, or None; names of files are not asked."""
    if data[:4] in (b"RIFF", b"FORM", b"RF64"):
        return RIFF_FORMS.get(data[8:12])
    if data[4:8] in BOXES:
        return "mov"
    for signature, name in SIGNATURES:
        if data.startswith(signature):
            return name
    if len(data) > 188 and data[0] == data[188] == 0x47:
        return "mpegts"
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        return "mp3" if data[1] & 0x06 else "aac"
    if data and not len(data) % GSM_FRAME_BYTES and all(byte >> 4 == 0xD for byte in data[::GSM_FRAME_BYTES]):
        return "gsm"  # has no header: each frame starts with the bits 1101
    return None


def check_complete(data: bytes) -> None:
    """Refuse a file that ends before the media that its container announces.

    Raises:
        ValueError: it does; the message says how many bytes are announced and how many are there.
    """
    name = container_of(data)
    if name == "ogg":
        _check_last_page(data)  # a cut between two pages is not seen: many whole files do not mark their last page
    for part in _media(name, data):
        present = len(data) - part.start
        if part.announced is not None and part.announced > present:
            said = part.name.decode("latin-1").strip()
            raise ValueError(f"cut off: {max(present, 0)} of the {part.announced} bytes that its part {said!r} announces are there.")


def _media(name: str | None, data: bytes) -> Iterator[Part]:
    """Yield the parts that hold media; those around them are often wrong in files that play well."""
    if name in ("wav", "avi", "aiff"):
        for part in _chunks(data, ">" if name == "aiff" else "<"):
            if part.name in (b"data", b"SSND") or data[part.start : part.start + 4] == b"movi":
                yield part
                return
    elif name == "mov":
        yield from _boxes(data)
    elif name == "matroska":
        yield from _segment(data)


def _chunks(data: bytes, byte_order: str) -> Iterator[Part]:
    start = 12
    while start + 8 <= len(data):
        (size,) = struct.unpack_from(byte_order + "I", data, start + 4)
        yield Part(data[start : start + 4], start + 8, None if size >= UNKNOWN_BYTES else size)
        start += 8 + size + size % 2


def _boxes(data: bytes) -> Iterator[Part]:
    start = 0
    while start + 8 <= len(data):
        (size,), name, header = struct.unpack_from(">I", data, start), data[start + 4 : start + 8], 8
        if size == 1 and start + 16 <= len(data):
            (size,), header = struct.unpack_from(">Q", data, start + 8), 16
        if size < header:  # 0: up to the end of the file; else damaged, which the decoder will say
            return
        yield Part(name, start + header, size - header)
        start += size


def _segment(data: bytes) -> Iterator[Part]:
    start = 0
    while start + 12 <= len(data):
        name, start = _number(data, start, keep_marker=True)
        size, after = _number(data, start, keep_marker=False)
        unknown = size == (1 << 7 * (after - start)) - 1
        if name == EBML_SEGMENT:
            yield Part(b"Segment", after, None if unknown else size)
            return
        if unknown:
            return
        start = after + size


def _number(data: bytes, start: int, keep_marker: bool) -> tuple[int, int]:
    """Read a number of variable length, whose leading zeros tell its length; return it and where it ends."""
    length = 9 - data[start].bit_length()
    number = int.from_bytes(data[start : start + length])
    return number if keep_marker else number & (1 << 7 * length) - 1, start + length


def _check_last_page(data: bytes) -> None:
    start = data.rfind(b"OggS")
    segments = data[start + 26] if start + 26 < len(data) else 0
    end = start + 27 + segments + sum(data[start + 27 : start + 27 + segments])
    if end > len(data):
        raise ValueError(f"cut off: {len(data)} bytes are there, and the last page would end at {end} or later.")
