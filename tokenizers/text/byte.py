"""Bytes as tokens.

Letters in shapes: n tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.tokenizers.text.tokenizer import TextTokenizer
from multimodal.tokenizers.text.words import begins_after

SPECIALS = 3
PAD_ID, END_ID, UNKNOWN_ID = range(SPECIALS)
WHITE_SPACE = tuple(byte + SPECIALS for byte in b"\t\n\v\f\r ")
"""The ids of white space in ASCII."""


class ByteTokenizer(TextTokenizer):
    """The UTF-8 bytes of a text, with the ids of ByT5 (https://arxiv.org/abs/2105.13626): 0 PAD, 1 END, 2 UNKNOWN, a byte b is b + 3.

    Departure: ByT5's vocabulary goes on to 384 with ids that no text has; here it ends with the last byte, at 259 ids.
    """

    def __init__(self) -> None:
        super().__init__()  # here, as the base class records the arguments of this constructor

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """259: three specials and 256 bytes."""
        return (SPECIALS + 256,)

    @property
    def special_ids(self) -> set[int]:
        """PAD, END and UNKNOWN."""
        return set(range(SPECIALS))

    def encode_text(self, text: str) -> Int[Tensor, " n"]:
        """Return an id for each byte of the text in UTF-8."""
        return torch.from_numpy(np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64)) + SPECIALS

    def begins(self, ids: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Return True at the first byte after white space of ASCII, which is of the word before it; specials are words of their own."""
        special = ids < SPECIALS
        begun = begins_after(torch.isin(ids, ids.new_tensor(WHITE_SPACE))) | special
        begun[1:] |= special[:-1]
        return begun

    def decode(self, ids: Int[Tensor, " n"]) -> str:
        """Return the text; specials are left out, and bytes that make no character become U+FFFD."""
        kept = ids[(ids >= SPECIALS) & (ids < SPECIALS + 256)] - SPECIALS
        return kept.to(torch.uint8).cpu().numpy().tobytes().decode("utf-8", errors="replace")
