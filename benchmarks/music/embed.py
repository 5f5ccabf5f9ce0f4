"""How notes enter the encoder of these tasks: at the time at which they begin, and without the metre where that is not to be known.

Letters in shapes: n tokens of all items end to end, k fields.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from multimodal.tokenizers.midi import CompoundEmbed
from multimodal.tokenizers.midi.bars import NUM_METRES, metres_of
from multimodal.tokens import Tokens

NEW, CONTINUE = 0, 1


class TimedEmbed(CompoundEmbed):
    """Compound words whose coordinates are the time of the note, in positions of the grid, and its voice, or where none is told its index.

    Time is counted from the start of the bar of the first note; the encoder should read *differences* of it alone (``RotaryPosition``). It
    is known also where the ids are hidden that it was counted from. Bars without notes must be kept by the tokenizer, or time passes
    without them.

    ``unseen`` fields show the MASK id always, also in fine-tuning: the encoder is never told bars, positions and metres of a melody, and
    learns them only as something to be predicted (``multimodal.objectives.MaskedPrediction`` with ``everywhere``).

    Args:
        dim: width of the encoder.
        vocab_sizes: number of ids of each field; the first three are bar, position and pitch, the last the time signature.
        field_dim: width of the embedding of a field.
        max_length: most tokens of an item.
        positions_per_beat: of the tokenizer.
        unseen: numbers of the fields that are never shown.
        voice: number of the field that tells the voice; None: none does.
    """

    lengths_of_bars: Tensor
    blind: Tensor

    def __init__(
        self,
        dim: int,
        vocab_sizes: Sequence[int],
        field_dim: int = 48,
        max_length: int = 1024,
        positions_per_beat: int = 12,
        unseen: Sequence[int] = (),
        voice: int | None = None,
    ) -> None:
        super().__init__(dim, vocab_sizes, field_dim=field_dim, max_length=max_length, positions=False)
        if vocab_sizes[-1] != NUM_METRES + 2:
            raise ValueError(
                f"the last field must be the time signature, of {NUM_METRES + 2} ids, got {vocab_sizes[-1]}: set metre to told."
            )
        self.voice = voice
        numerator, denominator = torch.from_numpy(metres_of(torch.arange(NUM_METRES).numpy())).unbind(1)
        self.register_buffer("lengths_of_bars", 4 * positions_per_beat * numerator // denominator, persistent=False)
        self.register_buffer("blind", torch.isin(torch.arange(len(vocab_sizes)), torch.tensor(list(unseen))), persistent=False)

    def tokens(self, values: Int[Tensor, "n k"], lengths: Int[Tensor, " items"] | None = None) -> Tokens:
        """Return one token per note; its coordinates are its time, and its voice or its index."""
        tokens = super().tokens(values, lengths)
        return Tokens(tokens.inputs, tokens.lengths, self._places(tokens.inputs, tokens.position))

    def _places(self, ids: Int[Tensor, "n k"], position: Int[Tensor, " n"]) -> Shaped[Tensor, "n 2"]:
        metre = ids[:, -1].clamp(max=NUM_METRES - 1)
        bar, first = ids[:, 0], position == 0
        passed = torch.where(bar == NEW, 1, torch.where(bar == CONTINUE, 0, bar)).masked_fill(first, 0)
        length = self.lengths_of_bars[metre.roll(1)]  # of the bar that ends
        begun = (passed * length).cumsum(0)
        time = begun + ids[:, 1] - begun[first].repeat_interleave(_counts(first))
        return torch.stack([time, position if self.voice is None else ids[:, self.voice]], 1)

    def forward(self, tokens: Tokens, shown_as_mask: Bool[Tensor, "n ..."] | None = None) -> Tensor:
        """Embed tokens; fields that are never shown, and those where ``shown_as_mask``, have their MASK id."""
        hidden = self.blind.expand(len(tokens.inputs), -1)
        if shown_as_mask is not None:
            hidden = hidden | (shown_as_mask if shown_as_mask.ndim == 2 else shown_as_mask[:, None])
        return super().forward(tokens, hidden)


def _counts(first: Bool[Tensor, " n"]) -> Tensor:
    """Return the number of tokens of each item, from where items begin."""
    begin = first.nonzero()[:, 0]
    return torch.diff(begin, append=begin.new_tensor([len(first)]))
