"""What the tokenizers of texts have in common: characters <-> ids, where the file is read.

Letters in shapes: n tokens.
"""

from __future__ import annotations

from abc import abstractmethod

from jaxtyping import Int
from torch import Tensor

from multimodal.tokenizers.pretrained import PretrainedTokenizer


class TextTokenizer(PretrainedTokenizer):
    """A tokenizer that a ``TextTransform`` owns: the values of its items are ids already."""

    def encode(self, values: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Return the argument: the ids were made when the file was read (``encode_text`` in ``TextTransform``)."""
        return values

    @abstractmethod
    def encode_text(self, text: str) -> Int[Tensor, " n"]:
        """Return the ids of a text, int64, without any that mark its start or end."""

    @abstractmethod
    def decode(self, ids: Int[Tensor, " n"]) -> str:
        """Return the text of ids; ids that a model predicted may be any."""
