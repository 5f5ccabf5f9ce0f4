"""Piano rolls of masked music and of what was predicted for it.

Letters in shapes: n notes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.protocols import Renderer, Target, Tokenizer
from multimodal.tokenizers.midi.compound import BAR, BAR_TICKS
from multimodal.tokenizers.midi.score import Column

WHITE, BAR_LINE, C_LINE = (255, 255, 255), (205, 205, 215), (236, 236, 242)
NOTE, HIDDEN, OUTLINE, RIGHT, WRONG = (45, 62, 110), (222, 222, 222), (150, 150, 150), (34, 160, 70), (214, 48, 49)
MARGIN_SEMITONES, MIN_SEMITONES = 2, 24


class PianoRollRenderer(Renderer):
    """The piece; the piece with hidden notes in grey; and the prediction, right notes green, wrong ones red.

    Behind a prediction lies the outline of the true note. A predicted note is right if all its fields are. It is drawn in the true bar,
    so that one wrong bar does not move all that follows; what is predicted as PAD or MASK leaves a red outline of the true note. Time
    goes right, pitch up; there is a line at each bar and at each C.

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
        values: Int[Tensor, "n 4"],
        ids: Int[Tensor, "n 4"],
        predicted: Int[Tensor, "n 4"],
        masked: Bool[Tensor, " n"],
    ) -> Mapping[str, Tensor]:
        """Return the three pictures; see ``Renderer.render``. The tokenizer is a ``CompoundTokenizer``."""
        true, _ = tokenizer.decode_all(ids)
        guess, is_note = tokenizer.decode_all(torch.cat([ids[:, : BAR + 1], predicted[:, BAR + 1 :]], dim=1))
        is_note = is_note & (predicted[:, BAR] < tokenizer.pad_ids[BAR])
        right = (predicted == ids).all(1)
        shown = true[:, Column.START] < self.max_bars * BAR_TICKS
        notes, guesses, valid, good, hidden = (x[shown].cpu().numpy() for x in (true, guess, is_note, right, masked))
        roll = _Roll(np.concatenate([notes, guesses[valid]]), self.width, self.semitone_height)
        piece, visible, prediction = roll.picture(), roll.picture(), roll.picture()
        for picture, hidden_colour in ((piece, NOTE), (visible, HIDDEN), (prediction, None)):
            for note, is_hidden in zip(notes, hidden, strict=True):
                roll.fill(picture, note, hidden_colour if is_hidden else NOTE)
        for note, has_guess in zip(notes[hidden], valid[hidden], strict=True):
            roll.outline(visible, note, OUTLINE)
            roll.outline(prediction, note, OUTLINE if has_guess else WRONG)
        for note, is_right in zip(guesses[hidden & valid], good[hidden & valid], strict=True):  # last: nothing may cover them
            roll.fill(prediction, note, RIGHT if is_right else WRONG)
        pictures = (torch.from_numpy(x).permute(2, 0, 1).contiguous() for x in (piece, visible, prediction))
        return dict(zip(self.columns, pictures, strict=True))


class _Roll:
    """Pixels of a picture in which all ``notes`` fit."""

    def __init__(self, notes: np.ndarray, width: int, semitone_height: int) -> None:
        pitch = notes[:, Column.PITCH] if len(notes) else np.array([60])
        end = (notes[:, Column.START]).max() if len(notes) else 0
        self.bars = int(end) // BAR_TICKS + 1
        spare = max(0, MIN_SEMITONES - int(np.ptp(pitch)) - 1) // 2 + MARGIN_SEMITONES
        self.low, self.high = int(pitch.min()) - spare, int(pitch.max()) + spare
        self.width, self.unit, self.scale = width, semitone_height, width / (self.bars * BAR_TICKS)

    def picture(self) -> np.ndarray:
        """Return an empty picture, ``(height, width, 3)`` uint8."""
        pixels = np.full(((self.high - self.low + 1) * self.unit, self.width, 3), WHITE, dtype=np.uint8)
        c_pitches = np.arange(-(-self.low // 12) * 12, self.high + 1, 12)
        pixels[(self.high - c_pitches + 1) * self.unit - 1] = C_LINE
        pixels[:, (np.arange(1, self.bars) * BAR_TICKS * self.scale).astype(int)] = BAR_LINE
        return pixels

    def fill(self, pixels: np.ndarray, note: np.ndarray, colour: tuple[int, int, int] | None) -> None:
        """Paint a note; None: leave it out."""
        if colour is None:
            return
        top, bottom, left, right = self._box(note)
        pixels[top:bottom, left:right] = colour

    def outline(self, pixels: np.ndarray, note: np.ndarray, colour: tuple[int, int, int]) -> None:
        """Paint the border of a note, one pixel wide."""
        top, bottom, left, right = self._box(note)
        pixels[[top, bottom - 1], left:right] = colour
        pixels[top:bottom, [left, right - 1]] = colour

    def _box(self, note: np.ndarray) -> tuple[int, int, int, int]:
        left = min(int(note[Column.START] * self.scale), self.width - 2)
        right = int((note[Column.START] + note[Column.DURATION]) * self.scale) - 1  # one pixel between repeated notes
        top = int(self.high - note[Column.PITCH]) * self.unit
        return top, top + self.unit, left, min(max(right, left + 2), self.width)
