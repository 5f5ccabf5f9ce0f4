"""Names out of data, made safe to print: they may hold what a terminal would take for commands."""

from __future__ import annotations

MOST_CHARACTERS = 300


def printable(text: str) -> str:
    """Return the text with whatever is no visible character written as an escape, and cut where it is very long."""
    cut = text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}... ({len(text)} characters)"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode() for character in cut
    )
