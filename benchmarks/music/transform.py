"""Windows of notes as these tasks read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from multimodal.batch import Item
from multimodal.tokenizers.midi import Column, MidiTransform, Score
from multimodal.tokenizers.midi.tokenizer import MidiTokenizer
from multimodal.windowed import item_of_windows


class TransposedTransform(MidiTransform):
    """``MidiTransform`` whose items are, in evaluation, several views of one window: the same notes in other keys.

    Args:
        tokenizer: makes the ids; None: the published compound words.
        max_notes: notes of a window.
        transpose: in training, pitches move by up to this many semitones.
        keys: in evaluation, the semitones by which the pitches of each view are moved; a view that would leave the tokenizer's range stays.
    """

    def __init__(self, tokenizer: MidiTokenizer | None = None, max_notes: int = 32, transpose: int = 6, keys: Sequence[int] = (0,)) -> None:
        super().__init__(tokenizer, max_notes, transpose=transpose)
        if not keys:
            raise ValueError("keys must name at least one view, such as 0.")
        self.keys = tuple(keys)

    @property
    def num_views(self) -> int:
        """As many as there are keys."""
        return len(self.keys)

    def __call__(self, decoded: Score, generator: torch.Generator, train: bool) -> Item:
        """Return the ids of a window; in evaluation with several keys, of all of its views end to end."""
        if train or len(self.keys) == 1:
            return super().__call__(decoded, generator, train)
        window = decoded[: self.max_notes]
        return item_of_windows([self.tokenizer.encode_score(self._moved(window, key)) for key in self.keys])

    def _moved(self, score: Score, semitones: int) -> Score:
        notes = score.notes.clone()
        notes[:, Column.PITCH] += semitones
        lowest, highest = self.tokenizer.pitch_range
        pitch = notes[:, Column.PITCH]
        return replace(score, notes=notes) if lowest <= int(pitch.min()) and int(pitch.max()) <= highest else score
