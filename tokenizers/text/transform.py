"""Text files -> windows of ids.

Letters in shapes: n tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from multimodal.batch import Item
from multimodal.protocols import Moments, Transform
from multimodal.tokenizers.text.byte import ByteTokenizer
from multimodal.tokenizers.text.decode import decode_text
from multimodal.tokenizers.text.describe import describe_text
from multimodal.tokenizers.text.tokenizer import TextTokenizer


class TextTransform(Transform):
    """A window of consecutive tokens of a UTF-8 text, as ids. In training it is drawn at random; in evaluation it is the first.

    Args:
        tokenizer: makes the ids; None: those of the bytes.
        max_tokens: tokens of a window, with those that mark its start and end; shorter texts are one window.
        min_tokens: texts with fewer, without those marks, are refused.
        max_bytes: longer files are refused before they are read.
    """

    extensions: ClassVar[tuple[str, ...]] = ("txt",)

    def __init__(self, tokenizer: TextTokenizer | None = None, max_tokens: int = 512, min_tokens: int = 1, max_bytes: int = 2**24) -> None:
        self.tokenizer = ByteTokenizer() if tokenizer is None else tokenizer
        marks = len(self.tokenizer.start_ids) + len(self.tokenizer.end_ids)
        if not 1 <= min_tokens <= max_tokens - marks:
            room = f"max_tokens - {marks}" if marks else "max_tokens"
            raise ValueError(f"min_tokens must be in [1, {room}], got min_tokens {min_tokens} and max_tokens {max_tokens}.")
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, got {max_bytes}.")
        self.max_tokens, self.min_tokens, self.max_bytes = max_tokens, min_tokens, max_bytes
        self._room = max_tokens - marks

    def decode(self, data: bytes) -> Int[Tensor, " n"]:
        """Return the ids of the whole text.

        Raises:
            ValueError: ``decode_text`` refuses the file, or it has fewer than ``min_tokens`` tokens.
        """
        ids = self.tokenizer.encode_text(decode_text(data, self.max_bytes))
        if len(ids) < self.min_tokens:
            raise ValueError(f"{len(ids)} tokens; at least min_tokens {self.min_tokens} are wanted.")
        return ids

    def describe(self, data: bytes) -> Mapping[str, float | Moments]:
        """Return characters, words and lines; see ``describe_text``."""
        return describe_text(data, self.max_bytes)

    def example(self) -> Item:
        """Return the shortest window there is."""
        return Item(self.tokenizer.mark(torch.zeros(self.min_tokens, dtype=torch.int64)), ragged=True)

    def __call__(self, decoded: Int[Tensor, " n"], generator: torch.Generator, train: bool) -> Item:
        """Return ``(n,)`` int64 ids, at most ``max_tokens``."""
        spare = max(0, len(decoded) - self._room)
        first = int(torch.randint(spare + 1, (), generator=generator)) if train else 0
        return Item(self.tokenizer.mark(decoded[first : first + self._room]), ragged=True)
