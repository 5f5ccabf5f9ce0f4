"""What the tokenizers of texts have in common: characters <-> ids, where the file is read.

Letters in shapes: n tokens, m tokens with marks.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.tokenizers.pretrained import PretrainedTokenizer


class TextTokenizer(PretrainedTokenizer):
    """A tokenizer that a ``TextTransform`` owns: the values of its items are ids already."""

    start_ids: tuple[int, ...] = ()
    """Ids that mark the start of a text or of a window of one: BERT's [CLS]."""
    end_ids: tuple[int, ...] = ()
    """Ids that mark its end: BERT's [SEP]."""

    def encode(self, values: Int[Tensor, " n"], lengths: Tensor | None = None) -> Int[Tensor, " n"]:
        """Return the argument: the ids were made when the file was read (``encode_text`` in ``TextTransform``)."""
        return values

    def marks(self, ids: Int[Tensor, " n"]) -> Bool[Tensor, " n"] | None:
        """Return True at the ids that ``mark`` puts around windows; None: it puts none."""
        there = {*self.start_ids, *self.end_ids}
        return torch.isin(ids, ids.new_tensor(sorted(there))) if there else None

    def mark(self, ids: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
        """Return the ids of a window with those that mark its start and its end."""
        return torch.cat([ids.new_tensor(self.start_ids), ids, ids.new_tensor(self.end_ids)])

    def located(self, text: str) -> tuple[Int[Tensor, " n"], Int[Tensor, "n 2"]]:
        """Return the ids of a text, and of each the characters that it was made of: from, and before which.

        Here for tokenizers that read a text character by character; others override it.

        Raises:
            ValueError: the tokenizer reads whole texts in another way than their characters, one after the other.
        """
        parts = [self.encode_text(character) for character in text]
        ids = torch.cat([torch.zeros(0, dtype=torch.int64), *parts])
        if not torch.equal(ids, self.encode_text(text)):
            raise ValueError(f"{type(self).__name__} does not say which characters a token is made of: use a FileTokenizer or bytes.")
        first = torch.repeat_interleave(torch.tensor([len(part) for part in parts], dtype=torch.int64))
        return ids, torch.stack([first, first + 1], 1)

    def kinds(self) -> tuple[Int[Tensor, " ids"], ...]:
        """Return 0 at ids of text, -1 at those that mark a text or stand for none."""
        return (-torch.isin(torch.arange(self.vocab_sizes[0]), torch.tensor(sorted(self.special_ids), dtype=torch.int64)).long(),)

    @property
    def special_ids(self) -> set[int]:
        """Ids that stand for no text; here those that ``mark`` puts around windows."""
        return {*self.start_ids, *self.end_ids}

    def file_of(self, ids: Int[Tensor, " n"]) -> tuple[str, bytes]:
        """Return the text as a file in UTF-8."""
        return "txt", self.decode(ids).encode("utf-8", "replace")

    @abstractmethod
    def encode_text(self, text: str) -> Int[Tensor, " n"]:
        """Return the ids of a text, int64, without any that mark its start or end."""

    @abstractmethod
    def decode(self, ids: Int[Tensor, " n"]) -> str:
        """Return the text of ids; ids that a model predicted may be any."""
