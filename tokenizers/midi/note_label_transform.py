"""MIDI files, and what says the classes of their notes -> windows of ids with the class of each note.

Letters in shapes: n tokens of all windows, w windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from multimodal.batch import Item
from multimodal.protocols import LabelledTransform, Moments
from multimodal.tokenizers.midi.note_labels import NO_CLASS, NoteLabels
from multimodal.tokenizers.midi.score import DRUMS, Column, Score, read_score
from multimodal.tokenizers.midi.tokenizer import MidiTokenizer
from multimodal.tokenizers.midi.transform import MidiTransform
from multimodal.windowed import PlaceColumn, no_labels


class NumberedPiece(NamedTuple):
    """The notes of a file.

    Args:
        whole: all of them, drums included.
        kept: those that tokens are made of, in the order of these, with their numbers among all.
    """

    whole: Score
    kept: Score


class NoteLabelTransform(LabelledTransform):
    """Notes as ids, and the class of each note; all tokens of a note tell it together.

    In training a window is drawn and augmented as ``music`` does it. In evaluation there are all windows, end to end, and each note is
    told by one of them: predictions are for whole files.

    Args:
        labels: where the classes come from.
        music: makes the windows and the ids; None: ``MidiTransform()``.
        overlap: notes that a window shares with the one before it in evaluation, so that notes at its ends are told by the one that sees
            more around them.

    Raises:
        ValueError: an overlap that is not below the notes of a window, tokens that show the labels, or several views.
    """

    extensions: ClassVar[tuple[str, ...]] = MidiTransform.extensions

    def __init__(self, labels: NoteLabels, music: MidiTransform | None = None, overlap: int = 0) -> None:
        self.labels, self.music, self.overlap = labels, music or MidiTransform(), overlap
        if not 0 <= overlap < self.music.max_notes:
            raise ValueError(f"overlap must be in [0, {self.music.max_notes}), the notes of a window, got {overlap}.")
        if self.music.num_views > 1:
            raise ValueError("num_windows of the music has no effect where notes are told, each in one window: leave it out.")
        if self.music.max_tokens is not None:
            raise ValueError("max_tokens of the music would leave out notes that are to be told: set max_notes instead.")
        labels.check_tokens(self.tokenizer)

    @property
    def label_extensions(self) -> tuple[str, ...]:  # type: ignore[override]
        """The fields of the labels: those of the MIDI file itself, where it tells them."""
        return self.labels.fields or self.extensions

    @property
    def tokenizer(self) -> MidiTokenizer:
        """What makes the ids."""
        return self.music.tokenizer

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their numbers."""
        return list(self.labels.classes)

    def decode(self, data: bytes) -> NumberedPiece:
        """Return the notes.

        Raises:
            ValueError: ``read_score`` refuses the file, or too few notes are left.
        """
        music = self.music
        whole = read_score(data, False, music.max_file_notes, music.max_file_bytes)
        whole = replace(whole, numbers=torch.arange(len(whole)))
        chosen = whole[whole.column(Column.PROGRAM) != DRUMS] if music.drop_drums else whole
        kept = self.tokenizer.restrict(chosen)
        if len(kept) < music.min_notes:
            raise ValueError(f"{len(kept)} notes in the tokenizer's range; at least {music.min_notes} are wanted.")
        return NumberedPiece(whole, kept)

    def decode_labels(self, data: bytes) -> Any:
        """Return what the labels say.

        Raises:
            ValueError: see ``NoteLabels.read``.
        """
        return self.labels.read(data)

    def describe(self, data: bytes) -> Mapping[str, float | Moments]:
        """Return notes, tracks, beats and range of pitches; see ``MidiTransform``."""
        return self.music.describe(data)

    def example(self) -> Item:
        """Return the example of the music as one window, all notes of class 0."""
        ids = self.music.example().values
        rows = no_labels(len(ids), PlaceColumn)
        note = self.tokenizer.note_of(ids)
        rows[:] = torch.stack([torch.zeros_like(note), note, note.clamp(max=0), (note.max() + 1).expand_as(note)], 1)
        return Item(ids, ragged=True, labels=rows)

    def labelled(self, decoded: NumberedPiece, labels: Any | None, generator: torch.Generator, train: bool) -> Item:
        """Return the ids of a window, or of all, and labels ``(n, 4)`` as ``multimodal.windowed.PlaceColumn`` says.

        Raises:
            ValueError: the labels do not fit the notes.
        """
        classes = torch.full((len(decoded.whole),), NO_CLASS) if labels is None else self.labels.of(decoded.whole, labels)
        if train:
            windows = [(self.music.drawn(decoded.kept, generator), None)]
        else:
            windows = [(decoded.kept[first:last], told) for first, last, told in self._spans(len(decoded.kept))]
        parts = [self._window(number, window, told, classes) for number, (window, told) in enumerate(windows)]
        values, rows = (torch.cat(part) for part in zip(*parts, strict=True))
        return Item(values, ragged=True, labels=rows)

    def _spans(self, count: int) -> list[tuple[int, int, slice]]:
        """Return the windows that reach over all notes: the first, the one after the last, and which of its own the window tells.

        The last window begins so early that it is full. Notes in two windows are told by the one with more around them.
        """
        size = self.music.max_notes
        starts = list(range(0, max(count - self.overlap, 1), size - self.overlap))
        starts[-1] = max(0, count - size)
        ends = [min(start + size, count) for start in starts]
        borders = [0, *((later + earlier + 1) // 2 for later, earlier in zip(starts[1:], ends, strict=False)), count]
        spans = zip(starts, ends, borders, borders[1:], strict=False)
        return [(start, end, slice(own - start, stop - start)) for start, end, own, stop in spans]

    def _window(self, number: int, window: Score, told: slice | None, classes: Int[Tensor, " all"]) -> tuple[Tensor, Tensor]:
        """Return the ids of a window, and their labels."""
        own = self.tokenizer.restrict(window)
        ids = self.tokenizer.encode_score(own)
        note = self.tokenizer.note_of(ids)
        assert own.numbers is not None
        place = torch.full((len(own) + 1,), NO_CLASS)  # the last is that of tokens of no note, -1
        place[: len(own)][told or slice(None)] = own.numbers[told or slice(None)]
        rows = no_labels(len(ids), PlaceColumn)
        rows[:, PlaceColumn.WINDOW], rows[:, PlaceColumn.PLACE], rows[:, PlaceColumn.COUNT] = number, place[note], len(classes)
        rows[:, PlaceColumn.CLASS] = torch.where(place[note] >= 0, classes[place[note]], NO_CLASS)
        return ids, rows
