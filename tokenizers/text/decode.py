"""Text files -> characters."""

from __future__ import annotations

import unicodedata

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def decode_text(data: bytes, max_bytes: int = 2**24) -> str:
    """Return the text of a file in UTF-8, in Unicode's composed form (NFC), without the byte order mark that some programs put first.

    Args:
        data: the file.
        max_bytes: of the file, at most.

    Raises:
        ValueError: the file is too long, is not UTF-8 (the message names the offset), or holds nothing but white space.
    """
    if len(data) > max_bytes:
        raise ValueError(f"a text of {len(data)} bytes is over max_bytes {max_bytes}.")
    start = len(BYTE_ORDER_MARK) if data.startswith(BYTE_ORDER_MARK) else 0
    try:
        text = data[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        offset = start + error.start
        raise ValueError(f"not UTF-8: byte 0x{data[offset]:02x} at offset {offset} of {len(data)} ({error.reason}).") from None
    if not text.strip():
        raise ValueError(f"an empty text: {len(data)} bytes, {len(text)} characters of white space.")
    return unicodedata.normalize("NFC", text)
