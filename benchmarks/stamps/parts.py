"""Small parts for text and speech, and a diary of a run.

Letters in shapes: n tokens, d width.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from multimodal.batch import Batch
from multimodal.nn import SinCosPosition
from multimodal.protocols import Embed, Tokenizer, Tokens

FRAME = 400  # 25 ms at 16 kHz


class ByteEmbed(Embed):
    """A vector for each byte, and its place.

    Args:
        dim: width of the encoder.
        vocab_size: number of ids.
    """

    def __init__(self, dim: int, vocab_size: int = 259) -> None:
        super().__init__()
        self.vocab_sizes = (vocab_size,)
        self.table, self.mask, self.position = nn.Embedding(vocab_size, dim), nn.Parameter(torch.zeros(dim)), SinCosPosition(dim)

    def tokens(self, values: Tensor, lengths: Tensor | None) -> Tokens:
        """Return a token for each id."""
        assert lengths is not None
        tokens = Tokens(values, lengths, values[:, None])
        return Tokens(values, lengths, tokens.position[:, None])

    def forward(self, tokens: Tokens, shown_as_mask: Tensor | None = None) -> Tensor:
        """Return ``(n, d)``."""
        x = self.table(tokens.inputs)
        x = x if shown_as_mask is None else torch.where(shown_as_mask[:, None], self.mask, x)
        return x + self.position(tokens.coordinates)


class FrameEmbed(Embed):
    """A waveform in frames of 25 ms, each through one linear layer.

    Args:
        dim: width of the encoder.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj, self.mask, self.position = nn.Linear(FRAME, dim), nn.Parameter(torch.zeros(dim)), SinCosPosition(dim)

    def tokens(self, values: Tensor, lengths: Tensor | None) -> Tokens:
        """Return a token for each whole frame."""
        assert lengths is not None
        frames = [sound[: len(sound) // FRAME * FRAME].view(-1, FRAME) for sound in values.split(lengths.tolist())]
        inputs = torch.cat(frames)
        tokens = Tokens(inputs, lengths // FRAME, inputs[:, :1])
        return Tokens(inputs, lengths // FRAME, tokens.position[:, None])

    def forward(self, tokens: Tokens, shown_as_mask: Tensor | None = None) -> Tensor:
        """Return ``(n, d)``."""
        x = self.proj(tokens.inputs)
        x = x if shown_as_mask is None else torch.where(shown_as_mask[:, None], self.mask, x)
        return x + self.position(tokens.coordinates)


class FrameLoudness(Tokenizer):
    """The loudness of each frame of 25 ms in 16 steps of 4 dB."""

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """16."""
        return (16,)

    def encode(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return ``(n,)`` ids of a waveform of whole frames."""
        power = values.view(-1, FRAME).square().mean(1)
        return (16 + 10 * power.clamp(min=1e-8).log10() / 4).long().clamp(0, 15)

    def fingerprint(self) -> str:
        """Return a name: there is one such tokenizer."""
        return "frame loudness 1"


class Diary(L.Callback):
    """Write ``RUN/steps.<rank>.jsonl``: what each step read, and its loss to the last bit."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Write a line."""
        line = {"epoch": trainer.current_epoch, "batch": batch_idx, "keys": batch.keys, "loss": float(outputs["loss"]).hex()}
        path = Path(trainer.default_root_dir) / f"steps.{trainer.global_rank}.jsonl"
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
