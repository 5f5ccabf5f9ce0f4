"""What all tokenizers of music have in common.

Letters in shapes: n tokens of all items end to end, m notes, k fields of a token, items.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.tokenizers.midi.grid import Field, Grid
from multimodal.tokenizers.midi.score import Column, Score, write_score
from multimodal.tokenizers.pretrained import PretrainedTokenizer

OutOfRange = Literal["clamp", "drop"]
DRUM_CLASS = 12
"""The group of drums among the pitch classes 0 (C) to 11 (B)."""


class MidiTokenizer(PretrainedTokenizer):
    """A score <-> ids: one or several tokens a note, each of one or several fields.

    Args:
        pitch_range: lowest and highest MIDI pitch that has an id, both included.
        out_of_range: whether notes outside the range move to its nearest end, or are left out.

    Raises:
        ValueError: a range that is not ascending or not of MIDI, or another way to treat notes outside it.
    """

    tells_drums: bool = False
    """Whether ids tell drums from other instruments."""
    tells_tempo: bool = False
    """Whether ids tell tempos."""

    def __init__(self, pitch_range: tuple[int, int], out_of_range: OutOfRange) -> None:
        super().__init__()
        if not 0 <= pitch_range[0] <= pitch_range[1] <= 127:
            raise ValueError(f"pitch_range must be ascending within 0 to 127, got {tuple(pitch_range)}.")
        if out_of_range not in ("clamp", "drop"):
            raise ValueError(f"out_of_range must be 'clamp' or 'drop', got {out_of_range!r}.")
        self.pitch_range = (int(pitch_range[0]), int(pitch_range[1]))
        self.out_of_range: OutOfRange = out_of_range

    @property
    def tokens_per_note(self) -> int:
        """The fewest tokens of a note."""
        return 1

    def encode(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the argument: the ids were made when the file was read (``encode_score`` in ``MidiTransform``)."""
        return values

    def restrict(self, score: Score) -> Score:
        """Return the score as its tokens take it: the notes that have ids, in the order of their tokens.

        Notes outside the range of pitches are clamped to it or dropped.
        """
        low, high = self.pitch_range
        pitch = score.notes[:, Column.PITCH].numpy()
        if not len(pitch) or (pitch.min() >= low and pitch.max() <= high):
            return score
        if self.out_of_range == "drop":
            return score[torch.from_numpy((pitch >= low) & (pitch <= high))]
        notes = score.notes.clone()
        notes[:, Column.PITCH].clamp_(low, high)
        return replace(score, notes=notes)

    def file_of(self, ids: Tensor) -> tuple[str, bytes]:
        """Return the notes of the ids as a MIDI file."""
        return "mid", write_score(self.decode_score(ids))

    @abstractmethod
    def encode_score(self, score: Score) -> Tensor:
        """Return the ids of a score's notes in the order of ``restrict``, ``(n,)`` for one field or ``(n, k)``; the first note opens a bar.

        Raises:
            ValueError: a start is negative or starts do not ascend.
        """

    @abstractmethod
    def decode_score(self, ids: Tensor) -> Score:
        """Return the score that ids say. They may be any, as a model predicts them: what is no note is left out."""

    @abstractmethod
    def snapped(self, score: Score) -> Score:
        """Return the score as it comes back from its ids, so that what is lost can be seen and heard."""

    @abstractmethod
    def note_of(self, ids: Tensor) -> Tensor:
        """Return ``(n,)`` int64, the number of the note (of ``restrict``) that each token belongs to; -1 at tokens of no note."""

    @abstractmethod
    def guesses(self, ids: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the notes of ids, what is predicted for each of them, and where that is a note at all.

        Each guess lies in the true bar, so that one wrong bar does not move all that follows.

        Args:
            ids: ``(n, ...)``, the true ones, of one item.
            predicted: like ``ids``.

        Returns:
            ``(m, 6)`` and ``(m, 6)`` int64 with the columns of ``Column``, numbered as ``note_of`` does; ``(m,)`` bool.
        """


class GridTokenizer(MidiTokenizer):
    """Ids of notes on a grid: a subclass says how the numbers of a note are laid out as tokens.

    Args:
        grid: what is kept of notes.
        pitch_range: lowest and highest MIDI pitch that has an id, both included.
        out_of_range: whether notes outside the range move to its nearest end, or are left out.
    """

    def __init__(self, grid: Grid, pitch_range: tuple[int, int], out_of_range: OutOfRange) -> None:
        super().__init__(pitch_range, out_of_range)
        self.grid = grid
        self.tells_drums, self.tells_tempo = grid.programs, grid.tempo_bins > 0

    def encode_score(self, score: Score) -> Int[Tensor, "n ..."]:
        """Return the ids; see ``MidiTokenizer.encode_score``."""
        return torch.from_numpy(self._pack(self.grid.fields(self.restrict(score))))

    def decode_score(self, ids: Int[Tensor, "n ..."]) -> Score:
        """Return the score that ids say; what they do not say is as ``Grid.notes`` has it."""
        own = ids.cpu().numpy()
        return self.grid.score(self._fields(own, self._places(own)))

    def snapped(self, score: Score) -> Score:
        """Return the score on the grid, with what ids do not say left to its default."""
        return self.grid.score(self.grid.fields(self.restrict(score)))

    def guesses(
        self, ids: Int[Tensor, "n ..."], predicted: Int[Tensor, "n ..."]
    ) -> tuple[Int[Tensor, "m 6"], Int[Tensor, "m 6"], Bool[Tensor, " m"]]:
        """Return true and predicted notes; see ``MidiTokenizer.guesses``."""
        own = ids.cpu().numpy()
        places = self._places(own)
        true = self._fields(own, places)
        said, valid = self._read(predicted.cpu().numpy(), places)
        layout = [Field.BAR, Field.TIME_SIGNATURE]
        said[:, layout] = true[:, layout]
        return torch.from_numpy(self.grid.notes(true)), torch.from_numpy(self.grid.notes(said)), torch.from_numpy(valid)

    def _fields(self, ids: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return the columns of ``Field`` for the notes that begin at some tokens."""
        fields, _ = self._read(ids, places)
        self._lay_out(fields, ids, places)
        return fields

    @abstractmethod
    def _pack(self, fields: Int[np.ndarray, "m 9"]) -> np.ndarray:
        """Return the ids of notes on the grid, ``(n,)`` or ``(n, k)``."""

    @abstractmethod
    def _places(self, ids: np.ndarray) -> Int[np.ndarray, " m"]:
        """Return the tokens at which notes begin; tokens that make no whole note are none."""

    @abstractmethod
    def _read(self, ids: np.ndarray, places: Int[np.ndarray, " m"]) -> tuple[Int[np.ndarray, "m 9"], Bool[np.ndarray, " m"]]:
        """Return what tokens from some places on say if notes begin there, and where they do make a note; bars may be missing."""

    @abstractmethod
    def _lay_out(self, fields: Int[np.ndarray, "m 9"], ids: np.ndarray, places: Int[np.ndarray, " m"]) -> None:
        """Fill in what only the tokens before a note tell: the number of its bar, and of the metre where a token of its own tells it."""


def first_tokens(lengths: Int[Tensor, " items"], num_tokens: int) -> Int[Tensor, " n"]:
    """Return for each token the first token of its item."""
    return torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths, output_size=num_tokens)
