"""Piano rolls of masked music and of what was predicted for it.

Letters in shapes: n tokens, m notes, k fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.protocols import Renderer, Target, Tokenizer
from multimodal.tokenizers.midi.bars import Bars
from multimodal.tokenizers.midi.score import Column
from multimodal.tokenizers.midi.tokenizer import MidiTokenizer

WHITE, BAR_LINE, C_LINE = (255, 255, 255), (205, 205, 215), (236, 236, 242)
HIDDEN, OUTLINE, RIGHT, WRONG = (222, 222, 222), (150, 150, 150), (34, 160, 70), (214, 48, 49)
TRACKS = ((45, 62, 110), (196, 132, 20), (122, 62, 150), (0, 128, 150), (120, 86, 60), (80, 80, 90))
"""Colours of the tracks, over and over; none is like the others here."""
MARGIN_SEMITONES, MIN_SEMITONES = 2, 24


class PianoRollRenderer(Renderer):
    """The piece; the piece with hidden notes in grey; and the prediction, right notes green, wrong ones red. Tracks differ in colour.

    Behind a prediction lies the outline of the true note. A note is hidden if any of its tokens is, and right if all of them are. It is
    drawn in the true bar, so that one wrong bar does not move all that follows; what is predicted as no note (PAD, MASK) leaves a red
    outline of the true note. Time goes right, pitch up; there is a line at each bar and at each C.

    Args:
        width: of each picture, in pixels.
        semitone_height: pixels of a semitone.
        max_bars: bars shown, from the first.
    """

    columns: ClassVar[tuple[str, ...]] = ("piece", "masked", "predicted")

    def __init__(self, width: int = 480, semitone_height: int = 4, max_bars: int = 8) -> None:
        self.width, self.semitone_height, self.max_bars = width, semitone_height, max_bars

    def render(
        self,
        tokenizer: Tokenizer | Target,
        values: Int[Tensor, "n ..."],
        ids: Int[Tensor, "n ..."],
        predicted: Int[Tensor, "n ..."],
        masked: Bool[Tensor, "n ..."],
    ) -> Mapping[str, Tensor]:
        """Return the three pictures; see ``Renderer.render``. The tokenizer is a ``MidiTokenizer``."""
        tokenizer = cast(MidiTokenizer, tokenizer)
        of_token = tokenizer.note_of(ids)
        notes, guesses, valid = (x.cpu().numpy() for x in tokenizer.guesses(ids, predicted))
        hidden, wrong = (_of_notes(flags, of_token, len(notes)) for flags in (masked, predicted != ids))
        bars = Bars.of(tokenizer.decode_score(ids).metres.numpy())
        first = bars.bar_of(notes[:1, Column.START])
        shown = notes[:, Column.START] < bars.start_of(first + self.max_bars).sum()  # there is one, or there are no notes
        notes, guesses, valid, hidden, right = (x[shown] for x in (notes, guesses, valid, hidden, ~wrong))
        roll = _Roll(np.concatenate([notes, guesses[valid]]), bars, self.width, self.semitone_height)
        piece, visible, prediction = roll.picture(), roll.picture(), roll.picture()
        for note, is_hidden in zip(notes, hidden, strict=True):
            colour = TRACKS[note[Column.TRACK] % len(TRACKS)]
            roll.fill(piece, note, colour)
            roll.fill(visible, note, HIDDEN if is_hidden else colour)
            if not is_hidden:
                roll.fill(prediction, note, colour)
        for note, has_guess in zip(notes[hidden], valid[hidden], strict=True):
            roll.outline(visible, note, OUTLINE)
            roll.outline(prediction, note, OUTLINE if has_guess else WRONG)
        for note, is_right in zip(guesses[hidden & valid], right[hidden & valid], strict=True):  # last: nothing may cover them
            roll.fill(prediction, note, RIGHT if is_right else WRONG)
        pictures = (torch.from_numpy(x).permute(2, 0, 1).contiguous() for x in (piece, visible, prediction))
        return dict(zip(self.columns, pictures, strict=True))


def _of_notes(flags: Bool[Tensor, "n ..."], of_token: Int[Tensor, " n"], count: int) -> Bool[np.ndarray, " m"]:
    """Return True at notes of which any token has a flag."""
    flagged = flags if flags.ndim == 1 else flags.any(1)
    found = np.zeros(count, bool)
    found[of_token[flagged & (of_token >= 0)].cpu().numpy()] = True
    return found


class _Roll:
    """Pixels of a picture in which all ``notes`` fit, from the bar of the first on."""

    def __init__(self, notes: np.ndarray, bars: Bars, width: int, semitone_height: int) -> None:
        pitch = notes[:, Column.PITCH] if len(notes) else np.array([60])
        starts = notes[:, Column.START] if len(notes) else np.zeros(1, np.int64)
        first, last = bars.bar_of(np.stack([starts.min(), starts.max()]))
        self.lines = bars.start_of(np.arange(first, last + 2))
        spare = max(0, MIN_SEMITONES - int(np.ptp(pitch)) - 1) // 2 + MARGIN_SEMITONES
        self.low, self.high = int(pitch.min()) - spare, int(pitch.max()) + spare
        self.origin, self.unit, self.scale = self.lines[0], semitone_height, width / (self.lines[-1] - self.lines[0])
        self.width = width

    def picture(self) -> np.ndarray:
        """Return an empty picture, ``(height, width, 3)`` uint8."""
        pixels = np.full(((self.high - self.low + 1) * self.unit, self.width, 3), WHITE, dtype=np.uint8)
        c_pitches = np.arange(-(-self.low // 12) * 12, self.high + 1, 12)
        pixels[(self.high - c_pitches + 1) * self.unit - 1] = C_LINE
        pixels[:, ((self.lines[1:-1] - self.origin) * self.scale).astype(int)] = BAR_LINE
        return pixels

    def fill(self, pixels: np.ndarray, note: np.ndarray, colour: tuple[int, int, int]) -> None:
        """Paint a note."""
        top, bottom, left, right = self._box(note)
        pixels[top:bottom, left:right] = colour

    def outline(self, pixels: np.ndarray, note: np.ndarray, colour: tuple[int, int, int]) -> None:
        """Paint the border of a note, one pixel wide."""
        top, bottom, left, right = self._box(note)
        pixels[[top, bottom - 1], left:right] = colour
        pixels[top:bottom, [left, right - 1]] = colour

    def _box(self, note: np.ndarray) -> tuple[int, int, int, int]:
        start = note[Column.START] - self.origin
        left = min(int(start * self.scale), self.width - 2)
        right = int((start + note[Column.DURATION]) * self.scale) - 1  # one pixel between repeated notes
        top = int(self.high - note[Column.PITCH]) * self.unit
        return top, top + self.unit, left, min(max(right, left + 2), self.width)
