"""Recordings in SoundFont files (SoundFont Technical Specification 2.04, sections 3, 5 and 7.10), as wave files of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

HEADER = np.dtype(
    [
        ("name", "S20"),
        *((name, "<u4") for name in ("start", "end", "loop_start", "loop_end", "rate")),
        ("pitch", "u1"),
        ("correction", "i1"),
        ("link", "<u2"),
        ("kind", "<u2"),
    ]
)
ONE, LEFT = 1, 4
"""Kinds of samples: on its own, left of a pair. The right one of a pair says hardly more."""
MIN_SECONDS = 0.1
"""Shorter ones are single periods, to be played in a loop."""


class Recording(NamedTuple):
    """A recording of a SoundFont.

    Args:
        name: as the file has it.
        rate: in hertz.
        samples: 16-bit, of one channel.
    """

    name: str
    rate: int
    samples: np.ndarray


def recordings(path: Path) -> Iterator[Recording]:
    """Yield the recordings of a SoundFont of 16-bit samples (sf2), of pairs the left one."""
    data = np.memmap(path, np.uint8, "r")
    chunks = dict(_chunks(data, 12, len(data)))
    samples = data[chunks["smpl"]].view("<i2")
    for header in data[chunks["shdr"]].view(HEADER)[:-1]:  # the last one says that there are no more
        if header["kind"] in (ONE, LEFT):
            name = header["name"].split(b"\0")[0].decode("latin-1")
            yield Recording(name, int(header["rate"]), samples[header["start"] : header["end"]])


def _chunks(data: np.ndarray, start: int, end: int) -> Iterator[tuple[str, slice]]:
    """Yield the name and the place of every part that holds no parts itself."""
    while start + 8 <= end:
        name, size = bytes(data[start : start + 4]), int(data[start + 4 : start + 8].view("<u4")[0])
        if name == b"LIST":
            yield from _chunks(data, start + 12, start + 8 + size)
        else:
            yield name.decode("latin-1"), slice(start + 8, start + 8 + size)
        start += 8 + size + size % 2


def write_recordings(path: Path, folder: Path) -> None:
    """Write each recording that is no single period as a wave file into ``folder``; a folder that is there already stays."""
    if folder.is_dir():
        return
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    for number, recording in enumerate(recordings(path)):
        if len(recording.samples) >= MIN_SECONDS * recording.rate:
            name = re.sub(r"[^\w-]+", "_", recording.name)
            soundfile.write(partial / f"{number:04d}_{name}.wav", recording.samples, recording.rate)
    partial.rename(folder)
