"""MIDI files -> windows of compound-word tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch

from multimodal.batch import Item
from multimodal.protocols import Moments, Transform
from multimodal.tokenizers.midi.compound import CompoundTokenizer
from multimodal.tokenizers.midi.describe import describe_notes
from multimodal.tokenizers.midi.notes import score_of
from multimodal.tokenizers.midi.score import TICKS_PER_BEAT, Column, Score, read_score
from multimodal.tokenizers.midi.tokenizer import MidiTokenizer


class MidiTransform(Transform):
    """A window of consecutive notes of a MIDI file, as ids; the first note of a window opens a bar.

    In training the window is drawn at random; in evaluation it is the first.

    Args:
        tokenizer: makes the ids; None: the published compound words.
        max_notes: notes of a window; shorter pieces are one window.
        min_notes: pieces with fewer notes are refused.
        transpose: in training, pitches move by up to this many semitones, never so far that a note leaves the tokenizer's range.
        drop_drums: leave out the drum tracks.
        max_file_notes: files with more notes are refused.
        max_file_bytes: larger files are refused before they are read.
    """

    extensions: ClassVar[tuple[str, ...]] = ("mid", "midi")

    def __init__(
        self,
        tokenizer: MidiTokenizer | None = None,
        max_notes: int = 256,
        min_notes: int = 8,
        transpose: int = 0,
        drop_drums: bool = True,
        max_file_notes: int = 1_000_000,
        max_file_bytes: int = 2**26,
    ) -> None:
        if not 1 <= min_notes <= max_notes:
            raise ValueError(f"min_notes must be in [1, max_notes], got min_notes {min_notes} and max_notes {max_notes}.")
        if transpose < 0:
            raise ValueError(f"transpose must be at least 0 semitones, got {transpose}.")
        self.tokenizer = CompoundTokenizer() if tokenizer is None else tokenizer
        self.max_notes, self.min_notes, self.transpose = max_notes, min_notes, transpose
        self.drop_drums, self.max_file_notes, self.max_file_bytes = drop_drums, max_file_notes, max_file_bytes

    def decode(self, data: bytes) -> Score:
        """Return the notes that the tokenizer has ids for; see ``read_score``.

        Raises:
            ValueError: ``read_score`` refuses the file, or fewer than ``min_notes`` notes are left.
        """
        score = self.tokenizer.restrict(read_score(data, self.drop_drums, self.max_file_notes, self.max_file_bytes))
        if len(score) < self.min_notes:
            raise ValueError(f"{len(score)} notes in the tokenizer's range; at least {self.min_notes} are wanted.")
        return score

    def describe(self, data: bytes) -> Mapping[str, float | Moments]:
        """Return notes, tracks, beats and range of pitches; see ``describe_notes``."""
        return describe_notes(data, self.drop_drums, self.max_file_notes, self.max_file_bytes)

    def example(self) -> Item:
        """Return the ids of as few notes as there may be, one after the other."""
        place = torch.arange(self.min_notes)
        pitch = torch.full_like(place, self.tokenizer.pitch_range[0])
        notes = torch.stack([place * TICKS_PER_BEAT, pitch, torch.full_like(place, TICKS_PER_BEAT), torch.full_like(place, 80)], dim=1)
        return Item(self.tokenizer.encode_score(score_of(notes)), ragged=True)

    def __call__(self, decoded: Score, generator: torch.Generator, train: bool) -> Item:
        """Return the ids of at most ``max_notes`` notes."""
        window = self.drawn(decoded, generator) if train else decoded[: self.max_notes]
        return Item(self.tokenizer.encode_score(window), ragged=True)

    def drawn(self, score: Score, generator: torch.Generator) -> Score:
        """Return a window of training, augmented; ``NoteLabelTransform`` finds the labels of its notes by ``Score.numbers``."""
        first = _draw(max(0, len(score) - self.max_notes), generator)
        return self._transposed(score, generator)[first : first + self.max_notes]

    def _transposed(self, score: Score, generator: torch.Generator) -> Score:
        lowest, highest = self.tokenizer.pitch_range
        pitch = score.column(Column.PITCH)
        down = min(self.transpose, int(pitch.min()) - lowest)
        up = min(self.transpose, highest - int(pitch.max()))
        notes = score.notes.clone()
        notes[:, Column.PITCH] += _draw(down + up, generator) - down
        return replace(score, notes=notes)


def _draw(highest: int, generator: torch.Generator) -> int:
    """Return a whole number in [0, highest]."""
    return int(torch.randint(highest + 1, (), generator=generator))
