"""What all tokenizers of music have in common.

Letters in shapes: n notes, m tokens, k fields.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Literal

from torch import Tensor

from multimodal.tokenizers.midi.score import Column, Score, write_score
from multimodal.tokenizers.pretrained import PretrainedTokenizer

OutOfRange = Literal["clamp", "drop"]


class MidiTokenizer(PretrainedTokenizer):
    """A score <-> ids: one or several tokens a note, each of one or several fields.

    Args:
        pitch_range: lowest and highest MIDI pitch that has an id, both included.
        out_of_range: whether notes outside the range move to its nearest end, or are left out.

    Raises:
        ValueError: a range that is not ascending or not of MIDI, or another way to treat notes outside it.
    """

    def __init__(self, pitch_range: tuple[int, int], out_of_range: OutOfRange) -> None:
        super().__init__()
        if not 0 <= pitch_range[0] <= pitch_range[1] <= 127:
            raise ValueError(f"pitch_range must be ascending within 0 to 127, got {tuple(pitch_range)}.")
        if out_of_range not in ("clamp", "drop"):
            raise ValueError(f"out_of_range must be 'clamp' or 'drop', got {out_of_range!r}.")
        self.pitch_range = (int(pitch_range[0]), int(pitch_range[1]))
        self.out_of_range: OutOfRange = out_of_range

    def encode(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the argument: the ids were made when the file was read (``encode_score`` in ``MidiTransform``)."""
        return values

    def restrict(self, score: Score) -> Score:
        """Return the score with the notes that have a pitch id; those outside the range are clamped to it or dropped."""
        low, high = self.pitch_range
        pitch = score.column(Column.PITCH)
        if self.out_of_range == "drop":
            return score[(pitch >= low) & (pitch <= high)]
        notes = score.notes.clone()
        notes[:, Column.PITCH] = pitch.clamp(low, high)
        return replace(score, notes=notes)

    @abstractmethod
    def encode_score(self, score: Score) -> Tensor:
        """Return the ids of a score's notes in their order, ``(m,)`` for one field or ``(m, k)``; the first note opens a bar.

        Raises:
            ValueError: a start is negative or starts do not ascend.
        """

    @abstractmethod
    def decode_score(self, ids: Tensor) -> Score:
        """Return the score that ids say. They may be any, as a model predicts them: what is no note is left out."""

    def file_of(self, ids: Tensor) -> tuple[str, bytes]:
        """Return the notes of the ids as a MIDI file."""
        return "mid", write_score(self.decode_score(ids))

    @abstractmethod
    def note_of(self, ids: Tensor) -> Tensor:
        """Return ``(m,)`` int64, the number of the note of the encoded score that each token belongs to; -1 at tokens of no note."""
