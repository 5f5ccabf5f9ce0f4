"""Files that say from when to when in a sound there is what.

Letters in shapes: k segments.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

MAX_BYTES = 2**24
HEADERS = ("start", "onset", "begin")
"""What the first cell of a line of headings may say."""
SHOWN = 20
"""So many of the classes are named in an error."""


class Segments(NamedTuple):
    """Segments of a sound in order of time, of which no two overlap.

    Args:
        starts: ``(k,)`` float64, in seconds.
        ends: ``(k,)`` float64, in seconds.
        classes: ``(k,)`` int64.
    """

    starts: Float[Tensor, " k"]
    ends: Float[Tensor, " k"]
    classes: Int[Tensor, " k"]


class SegmentReader:
    """Read tables and JSON of segments: start and end in seconds, and the name of a class.

    A table has a line for each segment, its three cells apart by tabs, or where a line has none by spaces; a line of headings
    (``start``, ``onset`` or ``begin`` first) and empty lines are passed over. JSON is a list of objects with ``start``, ``end`` and
    ``label``. HTK's label files, which count in 100 ns, must be converted first.

    Args:
        classes: their names, in order; the place of a name is its class.
        fields: of the shards; the first that a sample has is read.

    Raises:
        ValueError: no classes or fields, or a name twice.
    """

    def __init__(self, classes: Sequence[str], fields: Sequence[str] = ("segments.tsv", "segments.json", "lab")) -> None:
        for name, given in (("classes", classes), ("fields", fields)):
            if isinstance(given, str) or not given or len(set(given)) < len(given):
                raise ValueError(f"{name} must be a list of different names, got {given!r}.")
        self.classes, self.fields = tuple(classes), tuple(fields)
        self._numbers = {name: number for number, name in enumerate(self.classes)}

    def __call__(self, data: bytes) -> Segments:
        """Return the segments of a file.

        Raises:
            ValueError: no text, table or JSON of segments, a time that is no number of seconds, an end that is not after its start, an
                unknown class, or segments that overlap.
        """
        if len(data) > MAX_BYTES:
            raise ValueError(f"segments of {len(data)} bytes are over {MAX_BYTES}.")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"segments must be text in UTF-8: {error}.") from None
        rows = _objects(text) if text.lstrip().startswith(("[", "{")) else _lines(text)
        found = sorted(self._segment(*row) for row in rows)
        for (_, end, before), (start, _, after) in zip(found, found[1:], strict=False):
            if start < end:
                names = self.classes[before], self.classes[after]
                raise ValueError(f"segments overlap: {names[0]!r} ends at {end:g} s, {names[1]!r} starts at {start:g} s.")
        starts, ends, classes = zip(*found, strict=True) if found else ((), (), ())
        first, last = (torch.tensor(times, dtype=torch.float64) for times in (starts, ends))
        return Segments(first, last, torch.tensor(classes, dtype=torch.int64))

    def _segment(self, where: str, start: Any, end: Any, label: Any) -> tuple[float, float, int]:
        first, last = _seconds(where, "start", start), _seconds(where, "end", end)
        if last <= first:
            raise ValueError(f"{where}: the end {last:g} s is not after the start {first:g} s.")
        if not isinstance(label, str) or label not in self._numbers:
            known = ", ".join(self.classes[:SHOWN]) + (", ..." if len(self.classes) > SHOWN else "")
            raise ValueError(f"{where}: unknown class {str(label)[:60]!r}; classes are {known}.")
        return first, last, self._numbers[label]


def _lines(text: str) -> Iterator[tuple[str, Any, Any, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in (line.split("\t") if "\t" in line else line.split(None, 2))]
        if number == 1 and cells[0].lower() in HEADERS:
            continue
        if len(cells) != 3:
            raise ValueError(f"line {number} of the segments has {len(cells)} cells, not start, end and class: {line[:60]!r}.")
        yield f"line {number} of the segments", *cells


def _objects(text: str) -> Iterator[tuple[str, Any, Any, Any]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"segments are not JSON ({error}).") from None
    if not isinstance(content, list):
        raise ValueError("segments in JSON must be a list of objects with start, end and label.")
    for number, entry in enumerate(content, 1):
        if not isinstance(entry, dict) or not {"start", "end", "label"} <= entry.keys():
            raise ValueError(f"segment {number} must be an object with start, end and label, got {str(entry)[:60]!r}.")
        yield f"segment {number}", entry["start"], entry["end"], entry["label"]


def _seconds(where: str, name: str, value: Any) -> float:
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{where}: the {name} must be a number of seconds of at least 0, got {str(value)[:60]!r}.")
    return seconds
