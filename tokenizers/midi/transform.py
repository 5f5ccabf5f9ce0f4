"""MIDI files -> windows of tokens.

Letters in shapes: n tokens, k fields.
"""

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
from multimodal.tokenizers.midi.score import BEATS_PER_MINUTE, DRUMS, MICROSECONDS, TICKS_PER_BEAT, Column, Score, read_score
from multimodal.tokenizers.midi.tokenizer import MidiTokenizer
from multimodal.windowed import item_of_windows


class MidiTransform(Transform):
    """A window of consecutive notes of a MIDI file, as ids; the first note of a window opens a bar.

    In training the window is drawn at random. In evaluation it is the first; or there are several, at equal distances from the start of the
    piece to its end. A piece that is no longer than a window is one.

    Args:
        tokenizer: makes the ids; None: the published compound words.
        max_notes: notes of a window; shorter pieces are one window. None: as many as ``max_tokens`` allows.
        min_notes: pieces with fewer notes are refused.
        transpose: in training, pitches move by up to this many semitones, never so far that a note leaves the tokenizer's range; those of
            drums stay.
        drop_drums: leave out the drum tracks; None: where the ids do not tell drums from other instruments.
        max_file_notes: files with more notes are refused.
        max_file_bytes: larger files are refused before they are read.
        max_tokens: of a window, which ends with the last note that fits; None: there is no limit. For ids of several tokens a note.
        tempo: in training, all tempos are multiplied by a factor drawn from this range, at equal ratios; for ids that tell tempos.
        track_dropout: in training, probability of leaving out each track. Where fewer than ``min_notes`` notes would be left, all stay.
        num_windows: of a piece, in evaluation, at most; classes are told from all of them.

    Raises:
        ValueError: a setting outside its range, no limit of a window, or ``tempo`` for ids that do not tell it.
    """

    extensions: ClassVar[tuple[str, ...]] = ("mid", "midi")

    def __init__(
        self,
        tokenizer: MidiTokenizer | None = None,
        max_notes: int | None = 256,
        min_notes: int = 8,
        transpose: int = 0,
        drop_drums: bool | None = None,
        max_file_notes: int = 1_000_000,
        max_file_bytes: int = 2**26,
        max_tokens: int | None = None,
        tempo: tuple[float, float] = (1.0, 1.0),
        track_dropout: float = 0.0,
        num_windows: int = 1,
    ) -> None:
        self.tokenizer = CompoundTokenizer() if tokenizer is None else tokenizer
        limits = [max_notes, None if max_tokens is None else max_tokens // self.tokenizer.tokens_per_note]
        if limits == [None, None]:
            raise ValueError("a window needs max_notes or max_tokens; both are None.")
        self.max_notes = min(limit for limit in limits if limit is not None)
        if not 1 <= min_notes <= self.max_notes:
            raise ValueError(f"min_notes must be from 1 to the {self.max_notes} notes of a window, got {min_notes}.")
        if transpose < 0:
            raise ValueError(f"transpose must be at least 0 semitones, got {transpose}.")
        if not 0 < tempo[0] <= tempo[1]:
            raise ValueError(f"tempo must be an ascending range of positive factors, got {tuple(tempo)}.")
        if tuple(tempo) != (1, 1) and not self.tokenizer.tells_tempo:
            raise ValueError(
                f"tempo {tuple(tempo)} has no effect on a {type(self.tokenizer).__name__} whose ids tell no tempo: leave it out."
            )
        if not 0 <= track_dropout < 1 or num_windows < 1:
            raise ValueError(f"track_dropout must be in [0, 1) and num_windows at least 1, got {track_dropout} and {num_windows}.")
        self.min_notes, self.transpose, self.max_tokens = min_notes, transpose, max_tokens
        self.drop_drums = not self.tokenizer.tells_drums if drop_drums is None else drop_drums
        self.max_file_notes, self.max_file_bytes = max_file_notes, max_file_bytes
        self.tempo, self.track_dropout, self.num_windows = (float(tempo[0]), float(tempo[1])), track_dropout, num_windows

    @property
    def num_views(self) -> int:
        """Windows of a piece, in evaluation; see ``Transform.num_views``."""
        return self.num_windows

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
        """Return the ids of a window, ``(n,)`` or ``(n, k)``; in evaluation with several, these end to end.

        Raises:
            ValueError: ``max_tokens`` is below what the first note takes.
        """
        if train:
            return Item(self.tokenizer.encode_score(self.drawn(decoded, generator)), ragged=True)
        spare, gaps = max(0, len(decoded) - self.max_notes), max(1, self.num_windows - 1)
        firsts = sorted({round(spare * number / gaps) for number in range(self.num_windows)})
        windows = [self.tokenizer.encode_score(self.fitted(decoded[first : first + self.max_notes])) for first in firsts]
        return item_of_windows(windows) if self.num_windows > 1 else Item(windows[0], ragged=True)

    def drawn(self, score: Score, generator: torch.Generator) -> Score:
        """Return a window of training, augmented; ``NoteLabelTransform`` finds the labels of its notes by ``Score.numbers``."""
        score = self._thinned(score, generator)
        first = _draw(max(0, len(score) - self.max_notes), generator)
        window = self._transposed(score[first : first + self.max_notes], generator)
        return self.fitted(self._sped_up(window, generator))

    def fitted(self, window: Score) -> Score:
        """Return the notes of a window, from the first, of which all tokens are within ``max_tokens``.

        Raises:
            ValueError: there is none.
        """
        while self.max_tokens is not None and len(ids := self.tokenizer.encode_score(window)) > self.max_tokens:
            note = self.tokenizer.note_of(ids)
            last, after = int(note[: self.max_tokens].max()), int(note[self.max_tokens])
            count = min(last + (last != after), len(window) - 1)  # fewer notes may take more tokens, where these are of several notes
            if count < 1:
                raise ValueError(f"max_tokens {self.max_tokens} is below the tokens of one note and its bar.")
            window = window[:count]
        return window

    def _thinned(self, score: Score, generator: torch.Generator) -> Score:
        """Return the score without some tracks."""
        if not self.track_dropout:
            return score
        track = score.column(Column.TRACK)
        kept = (torch.rand(int(track.max()) + 1, generator=generator) >= self.track_dropout)[track]
        return score[kept] if int(kept.sum()) >= self.min_notes else score

    def _transposed(self, score: Score, generator: torch.Generator) -> Score:
        if not self.transpose:
            return score
        moves = score.column(Column.PROGRAM) != DRUMS
        lowest, highest = self.tokenizer.pitch_range
        pitch = score.column(Column.PITCH)[moves]
        down = min(self.transpose, int(pitch.min()) - lowest) if len(pitch) else 0
        up = min(self.transpose, highest - int(pitch.max())) if len(pitch) else 0
        notes = score.notes.clone()
        notes[:, Column.PITCH] += (_draw(down + up, generator) - down) * moves
        return replace(score, notes=notes)

    def _sped_up(self, score: Score, generator: torch.Generator) -> Score:
        low, high = self.tempo
        if low == high == 1:
            return score
        factor = low * (high / low) ** float(torch.rand((), generator=generator))
        first = torch.tensor([[0, round(MICROSECONDS / BEATS_PER_MINUTE)]])
        tempos = score.tempos if (score.tempos[:1, 0] == 0).any() else torch.cat([first, score.tempos])
        scaled = (tempos[:, 1] / factor).round().clamp(min=1).long()
        return replace(score, tempos=torch.stack([tempos[:, 0], scaled], dim=1))


def _draw(highest: int, generator: torch.Generator) -> int:
    """Return a whole number in [0, highest]."""
    return int(torch.randint(highest + 1, (), generator=generator))
