"""Classes of notes that the MIDI file itself tells: how loud, of which track, by which instrument.

Letters in shapes: n notes of a file, drums included, in the order of ``read_score``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from multimodal.tokenizers.midi.score import DRUMS, Column, Score
from multimodal.tokenizers.midi.tokenizer import MidiTokenizer

NO_CLASS = -1
EDGES = (0, 32, 48, 64, 80, 96, 128)
"""Of MidiBERT's six classes of velocities."""
FAMILIES = (
    "piano",
    "chromatic_percussion",
    "organ",
    "guitar",
    "bass",
    "strings",
    "ensemble",
    "brass",
    "reed",
    "pipe",
    "synth_lead",
    "synth_pad",
    "synth_effects",
    "ethnic",
    "percussive",
    "sound_effects",
)
"""General MIDI's instruments, eight programs each."""
SHOWN = 20
"""So many tracks of a file are named in an error."""


class NoteLabels(ABC):
    """Says the class of each note of a file.

    Args:
        classes: their names, in order; the place of a name is its class.

    Raises:
        ValueError: no classes, or one twice.
    """

    fields: tuple[str, ...] = ()
    """The fields of the shards that hold the labels; none: the MIDI file tells them."""
    told_by: ClassVar[str] = ""
    """The field of tokens that would show the labels, as ``MidiTokenizer.field_names`` calls it."""

    def __init__(self, classes: Sequence[str]) -> None:
        if isinstance(classes, str) or not classes or len(set(classes)) < len(classes):
            raise ValueError(f"classes must be a list of different names, got {classes!r}.")
        self.classes = tuple(classes)

    def read(self, data: bytes) -> Any:
        """Return what a file of labels says; of a MIDI file, whose notes are read anyway, nothing that matters.

        Raises:
            ValueError: it is no such file.
        """
        return ()

    @abstractmethod
    def of(self, score: Score, read: Any) -> Int[Tensor, " n"]:
        """Return the class of each note, -1 where it has none.

        Args:
            score: all notes of a file.
            read: as ``read`` returned it.

        Raises:
            ValueError: the labels do not fit the notes.
        """

    def check_tokens(self, tokenizer: MidiTokenizer) -> None:
        """Look whether the tokens show what is to be told.

        Raises:
            ValueError: they do.
        """
        grid = getattr(tokenizer, "grid", None)
        shown = {
            "velocity": getattr(grid, "velocity_bins", 0) > 0,
            "track": getattr(grid, "num_tracks", 0) > 0,
            "program": getattr(grid, "programs", False),
        }
        if self.told_by in tokenizer.field_names or shown.get(self.told_by, False):
            raise ValueError(
                f"{type(self).__name__} asks for the {self.told_by} of notes, which tokens of this {type(tokenizer).__name__} show: leave "
                "it out of them."
            )


class VelocityLabels(NoteLabels):
    """How loud each note is played: class i for velocities from edge i up to below edge i + 1.

    MidiBERT (https://arxiv.org/abs/2107.05223; ``data_creation/prepare_data``) has the same six classes.

    Args:
        edges: ascending, from 0 to 128, which no velocity reaches.
        padding: whether class 0 is padding, which no note is, and the others are numbered from 1, as in MidiBERT's published classifiers.

    Raises:
        ValueError: other edges.
    """

    told_by = "velocity"

    def __init__(self, edges: Sequence[int] = EDGES, padding: bool = False) -> None:
        own = list(edges)
        if len(own) < 2 or own[0] != 0 or own[-1] != 128 or own != sorted(set(own)):
            raise ValueError(f"edges must ascend from 0 to 128, got {own}.")
        names = [f"{low}-{high - 1}" for low, high in zip(own, own[1:], strict=False)]
        super().__init__(["padding", *names] if padding else names)
        self.edges, self.padding = tuple(own), padding

    def of(self, score: Score, read: Any) -> Int[Tensor, " n"]:
        """Return the class of each note; see ``NoteLabels.of``."""
        return torch.bucketize(score.column(Column.VELOCITY).contiguous(), torch.tensor(self.edges[1:-1]), right=True) + self.padding


class TrackLabels(NoteLabels):
    """The track that each note is of, such as melody, bridge and accompaniment in POP909, or the voice of a chorale.

    Args:
        tracks: class -> names of its tracks (case and blanks around do not matter) or numbers of them, from 0 among the tracks with notes.
            Notes of other tracks have no class. A class may have no track (MidiBERT's published classifiers: ``padding: []`` first).

    Raises:
        ValueError: no classes, or a track in two of them; of a file, that it has none of the tracks.
    """

    told_by = "track"

    def __init__(self, tracks: Mapping[str, Sequence[int | str]]) -> None:
        super().__init__(list(tracks))
        named = [_plain(track) for own in tracks.values() for track in own]
        if any(isinstance(own, str) for own in tracks.values()) or not named or len(set(named)) < len(named):
            raise ValueError(f"tracks must be lists of names or numbers, each in one of them, got {dict(tracks)}.")
        self.tracks = {_plain(track): number for number, own in enumerate(tracks.values()) for track in own}

    def of(self, score: Score, read: Any) -> Int[Tensor, " n"]:
        """Return the class of each note; see ``NoteLabels.of``."""
        track, names = score.column(Column.TRACK), score.track_names
        count = max(len(names), int(track.max()) + 1 if len(track) else 0)
        found = [self._class(number, names[number] if number < len(names) else "") for number in range(count)]
        if all(number == NO_CLASS for number in found):
            shown = ", ".join(repr(name) for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            raise ValueError(
                f"none of the tracks {list(self.tracks)} is among the {count} tracks with notes: {shown or 'they have no names'}."
            )
        return torch.tensor(found)[track]

    def _class(self, number: int, name: str) -> int:
        return self.tracks.get(_plain(name), self.tracks.get(number, NO_CLASS))


class ProgramLabels(NoteLabels):
    """The instrument that plays each note.

    Args:
        programs: class -> MIDI programs, 0 to 127, and 128 for drums. Notes of other programs have no class. None: the 16 families of
            General MIDI, and drums.

    Raises:
        ValueError: no classes, or a program that is none or is in two of them.
    """

    told_by = "program"

    def __init__(self, programs: Mapping[str, Sequence[int]] | None = None) -> None:
        own = families() if programs is None else programs
        super().__init__(list(own))
        given = [program for some in own.values() for program in some]
        if len(set(given)) < len(given) or not all(0 <= program <= DRUMS for program in given):
            raise ValueError(f"programs must be lists of numbers from 0 to {DRUMS}, each in one of them, got {dict(own)}.")
        self.programs = {program: number for number, some in enumerate(own.values()) for program in some}

    def of(self, score: Score, read: Any) -> Int[Tensor, " n"]:
        """Return the class of each note; see ``NoteLabels.of``."""
        classes = torch.tensor([self.programs.get(program, NO_CLASS) for program in range(DRUMS + 1)])
        return classes[score.column(Column.PROGRAM)]


def families() -> dict[str, list[int]]:
    """Return the families of General MIDI, and drums: name -> programs."""
    return {name: list(range(8 * number, 8 * number + 8)) for number, name in enumerate(FAMILIES)} | {"drums": [DRUMS]}


def _plain(track: int | str) -> int | str:
    return track.strip().casefold() if isinstance(track, str) else track
