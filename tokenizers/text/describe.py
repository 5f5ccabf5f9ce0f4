"""Measurements of a text file."""

from __future__ import annotations

from multimodal.tokenizers.text.decode import decode_text


def describe_text(data: bytes, max_bytes: int = 2**24) -> dict[str, float]:
    """Return the number of characters, of words between white space, and of lines.

    Raises:
        ValueError: as ``decode_text``.
    """
    words = decode_text(data, max_bytes)
    return {"characters": len(words), "words": len(words.split()), "lines": len(words.splitlines())}
