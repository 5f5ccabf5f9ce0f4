"""Real MIDI files that the package music21 brings along: up to 21 tracks, 192 to 1024 ticks a beat, changes of tempo and metre."""

import importlib.util
from functools import cache
from pathlib import Path

import pytest

NAMES = ("midi/testPrimitive/test03", "midi/testPrimitive/test04", "midi/testPrimitive/test09", "omr/k525MIDIMvt1", "omr/k525short")


@cache
def real_files() -> dict[str, bytes]:
    """Name -> file: two pieces for piano, one for an orchestra, and a string quintet in two versions."""
    found = importlib.util.find_spec("music21")
    if found is None or found.origin is None:
        pytest.skip("the package music21 is not installed")
    folder = Path(found.origin).parent
    missing = [name for name in NAMES if not (folder / f"{name}.mid").is_file()]
    if missing:
        pytest.skip(f"this version of music21 lacks {missing}")
    return {name: (folder / f"{name}.mid").read_bytes() for name in NAMES}
