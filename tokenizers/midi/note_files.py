"""Files beside MIDI files that say the classes of notes.

Letters in shapes: n notes of a MIDI file, drums included, in the order of ``read_score``; k entries of a file of labels.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from multimodal.tokenizers.midi.note_labels import NO_CLASS, NoteLabels
from multimodal.tokenizers.midi.score import TICKS_PER_BEAT, Column, Score

MAX_BYTES = 2**26
LABEL, START, PITCH, TRACK = "label", "start", "pitch", "track"
NEAR_TICKS = (0, -1, 1)
"""How far a start may be from that of its note, the nearest first: it was rounded once in the MIDI file, and again where it was written."""
PITCHES, MAX_TRACK = 128, 2**15
SHOWN = 20
"""So many of the classes are named in an error."""


class NoteEntries(NamedTuple):
    """What a file of labels says.

    Args:
        classes: ``(k,)`` int64, -1 for none.
        starts: ``(k,)`` float64, in beats; None: there is an entry for each note, in their order.
        pitches: ``(k,)`` int64; None as before.
        tracks: ``(k,)`` int64; None: entries do not say the track.
    """

    classes: Int[np.ndarray, " k"]
    starts: Float[np.ndarray, " k"] | None
    pitches: Int[np.ndarray, " k"] | None
    tracks: Int[np.ndarray, " k"] | None


class NoteFileLabels(NoteLabels):
    """Classes from a file beside the MIDI file: JSON, or a table (CSV) with a line of headings.

    A file of either kind has one of two layouts.

    In order: there is an entry for each note of the MIDI file, sorted by start, pitch, duration, velocity, program and track, drums
    included. JSON: a list of names, ``null`` for no class. A table: a column ``label``, an empty cell for no class.

    By note: each entry has a ``start`` in beats (quarter notes from the start of the file), a ``pitch`` and a ``label``, and maybe a
    ``track``, as numbers from 0 among the tracks with notes. It labels all notes that start there, to a tick of 1/480 beat, with that pitch
    (and of that track). JSON: a list of objects; a table: columns of these names. Notes without an entry get the class ``rest``.

    Args:
        classes: their names, in order; the place of a name is its class.
        fields: of the shards; the first that a sample has is read. Names of two parts take a ``--field-pattern`` to be written.
        rest: the class of notes without an entry, one of the classes; None: they have none. It is for entries by note.

    Raises:
        ValueError: no classes or fields, a name twice, or a ``rest`` that is no class.
    """

    def __init__(self, classes: Sequence[str], fields: Sequence[str] = ("csv", "notes.csv", "notes.json"), rest: str | None = None) -> None:
        super().__init__(classes)
        if isinstance(fields, str) or not fields or len(set(fields)) < len(fields):
            raise ValueError(f"fields must be a list of different names, got {fields!r}.")
        if rest is not None and rest not in classes:
            raise ValueError(f"rest must be one of the classes {', '.join(classes)}, or null; got {rest!r}.")
        self.fields, self.rest = tuple(fields), rest
        self._numbers = {name: number for number, name in enumerate(self.classes)}

    def read(self, data: bytes) -> NoteEntries:
        """Return the entries of a file.

        Raises:
            ValueError: it is neither layout, an entry has no number where one is wanted, or an unknown class; the message says which entry.
        """
        if len(data) > MAX_BYTES:
            raise ValueError(f"labels of notes of {len(data)} bytes are over {MAX_BYTES}.")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"labels of notes must be text in UTF-8: {error}.") from None
        columns, rows = _of_json(text) if text.lstrip().startswith(("[", "{")) else _of_table(text)
        classes = np.array([self._class(number, row.get(LABEL)) for number, row in enumerate(rows, 1)], np.int64)
        if START not in columns:
            return NoteEntries(classes, None, None, None)
        tracks = _column(rows, TRACK, MAX_TRACK).astype(np.int64) if TRACK in columns else None
        return NoteEntries(classes, _column(rows, START, math.inf), _column(rows, PITCH, PITCHES - 1).astype(np.int64), tracks)

    def of(self, score: Score, read: NoteEntries) -> Int[Tensor, " n"]:
        """Return the class of each note; see ``NoteLabels.of``.

        Raises:
            ValueError: there is not an entry for each note; or an entry is of no note, or of the same as another.
        """
        if read.starts is None or read.pitches is None:
            if len(read.classes) != len(score):
                raise ValueError(f"there are {len(read.classes)} labels for the {len(score)} notes of the MIDI file, drums included.")
            return torch.from_numpy(read.classes)
        notes, ticks = score.notes.numpy(), np.rint(read.starts * TICKS_PER_BEAT).astype(np.int64)
        count = 1 + max(int(notes[:, Column.TRACK].max(initial=0)), 0 if read.tracks is None else int(read.tracks.max(initial=0)))
        own, said = (notes[:, Column.TRACK], read.tracks) if read.tracks is not None else (0, 0)
        keys = (notes[:, Column.START] * PITCHES + notes[:, Column.PITCH]) * count + own
        known, key_of = np.unique(keys, return_inverse=True)
        found = np.full(len(ticks), -1)
        for near in NEAR_TICKS:
            wanted = ((ticks + near) * PITCHES + read.pitches) * count + said
            place = np.searchsorted(known, wanted).clip(max=len(known) - 1)
            found = np.where((found < 0) & (known[place] == wanted), place, found)
        self._check_found(found, read)
        classes = np.full(len(known), NO_CLASS if self.rest is None else self._numbers[self.rest])
        classes[found] = read.classes
        return torch.from_numpy(classes[key_of])

    def _check_found(self, found: Int[np.ndarray, " k"], read: NoteEntries) -> None:
        assert read.starts is not None and read.pitches is not None
        missing = np.flatnonzero(found < 0)
        if len(missing):
            first = int(missing[0])
            track = "" if read.tracks is None else f" in track {read.tracks[first]}"
            raise ValueError(
                f"entry {first + 1} is of no note: none starts at beat {read.starts[first]:g} with pitch {read.pitches[first]}{track}; "
                f"{len(missing)} of {len(found)} entries are."
            )
        first_of, counts = np.unique(found, return_index=True, return_counts=True)[1:]
        if (counts > 1).any():
            first = int(first_of[counts > 1][0])
            again = int(np.flatnonzero(found == found[first])[1])
            raise ValueError(f"entries {first + 1} and {again + 1} are of the same note.")

    def _class(self, number: int, label: Any) -> int:
        if label is None or label == "":
            return NO_CLASS
        if not isinstance(label, str) or label not in self._numbers:
            known = ", ".join(self.classes[:SHOWN]) + (", ..." if len(self.classes) > SHOWN else "")
            raise ValueError(f"entry {number} has the unknown class {str(label)[:60]!r}; classes are {known}.")
        return self._numbers[label]


def _of_json(text: str) -> tuple[Sequence[str], Sequence[Mapping[str, Any]]]:
    """Return the names of the columns, and the entries."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"labels of notes are not JSON ({error}).") from None
    if isinstance(content, list) and all(entry is None or isinstance(entry, str) for entry in content):
        return [LABEL], [{LABEL: entry} for entry in content]
    if not isinstance(content, list) or not all(isinstance(entry, dict) and entry.keys() == content[0].keys() for entry in content):
        raise ValueError("labels of notes in JSON must be a list of names, or of objects that all have the same entries.")
    return _checked(list(content[0])), content


def _of_table(text: str) -> tuple[Sequence[str], Sequence[Mapping[str, Any]]]:
    """Return the names of the columns, and the entries."""
    try:
        lines = [[cell.strip() for cell in line] for line in csv.reader(io.StringIO(text), strict=True) if line]
    except csv.Error as error:
        raise ValueError(f"labels of notes are no table: {error}.") from None
    columns = _checked(lines[0] if lines else [])
    for number, line in enumerate(lines[1:], 1):
        if len(line) != len(columns):
            raise ValueError(f"entry {number} has {len(line)} cells, the line of headings {len(columns)}.")
    return columns, [dict(zip(columns, line, strict=True)) for line in lines[1:]]


def _checked(names: Sequence[str]) -> Sequence[str]:
    given = set(names)
    if LABEL not in given or (START in given) != (PITCH in given) or (TRACK in given and START not in given):
        raise ValueError(
            f"entries of labels of notes must have a {LABEL}, and {START} and {PITCH} or neither, with which there may be a {TRACK}; these "
            f"have {', '.join(map(repr, names)) or 'nothing'}."
        )
    return names


def _column(rows: Sequence[Mapping[str, Any]], name: str, highest: float) -> Float[np.ndarray, " k"]:
    """Return a column of numbers of at least 0; whole ones, where there is a highest."""
    return np.array([_number(number, name, row[name], highest) for number, row in enumerate(rows, 1)], np.float64)


def _number(entry: int, name: str, value: Any, highest: float) -> float:
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    whole = highest < math.inf
    if not 0 <= found <= min(highest, 2**31) or (whole and found != int(found)):
        wanted = f"a whole number from 0 to {highest:g}" if whole else "a number of beats of at least 0"
        raise ValueError(f"entry {entry}: the {name} must be {wanted}, got {str(value)[:60]!r}.")
    return found
