"""Names of fields: the extension of a file, and before it the folder or column where several have files of that extension."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Set

FIELD_NAME = re.compile(r"[a-z0-9_+-]+")
COMPOUND_NAME = re.compile(r"[a-z0-9_+-]+(\.[a-z0-9_+-]+)*")


def shared_extensions(extensions: Mapping[str, Set[str]]) -> frozenset[str]:
    """Return the extensions that more than one place has.

    Args:
        extensions: place (a folder or column) -> extensions of its files.
    """
    counts = Counter(extension for found in extensions.values() for extension in found)
    return frozenset(extension for extension, count in counts.items() if count > 1)


def field_of(place: str, extension: str, shared: Set[str]) -> str:
    """Return the name of a field: ``extension``, or ``place.extension`` where the extension alone would stand for several."""
    return f"{clean_place(place)}.{extension}" if extension in shared else extension


def clean_place(place: str) -> str:
    """Return the name of a folder or column as the first part of a field's name."""
    return re.sub(r"[^a-z0-9_+-]+", "_", place.lower()) or "_"
