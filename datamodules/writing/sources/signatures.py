"""What kind of file some bytes are, by how they begin."""

from __future__ import annotations

_STARTS: dict[bytes, str] = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpg",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"ID3": "mp3",
    b"\xff\xfb": "mp3",
    b"\xff\xf3": "mp3",
    b"\x1aE\xdf\xa3": "mkv",
    b"MThd": "mid",
    b"%PDF": "pdf",
}
_CONTAINERS: dict[tuple[bytes, bytes], str] = {
    (b"RIFF", b"WAVE"): "wav",
    (b"RIFF", b"WEBP"): "webp",
    (b"RIFF", b"AVI "): "avi",
    (b"FORM", b"AIFF"): "aiff",
}


def extension_of(data: bytes) -> str:
    """Return the extension that files which begin like this have; "" for an unknown beginning."""
    if data[4:8] == b"ftyp":
        return "mp4"
    inside = _CONTAINERS.get((data[:4], data[8:12]))
    return inside or next((extension for start, extension in _STARTS.items() if data.startswith(start)), "")
