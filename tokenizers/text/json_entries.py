"""JSON objects with texts in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def read_object(data: bytes, max_bytes: int) -> dict[str, Any]:
    """Return the object that a file holds.

    Args:
        data: the file.
        max_bytes: of the file, at most.

    Raises:
        ValueError: the file is too long, or holds no JSON object.
    """
    if len(data) > max_bytes:
        raise ValueError(f"a file of {len(data)} bytes is over max_bytes {max_bytes}.")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON object ({error}).") from None
    if not isinstance(found, dict):
        raise ValueError(f"not a JSON object but {str(found)[:40]!r}.")
    return found


def read_text(entries: Mapping[str, Any], name: str) -> str:
    """Return an entry that is a text.

    Raises:
        ValueError: it is missing, no string, or nothing but white space.
    """
    if name not in entries:
        raise ValueError(f"no entry {name!r}; there are {', '.join(sorted(entries)) or 'none'}.")
    found = entries[name]
    if not isinstance(found, str) or not found.strip():
        raise ValueError(f"the entry {name!r} must be a text that is not empty, got {str(found)[:40]!r}.")
    return found
