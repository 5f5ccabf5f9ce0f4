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

    @abstractmethod
    def encode_text(self, text: str) -> Int[Tensor, " n"]:
        """Return the ids of a text, int64, without any that mark its start or end."""

    @abstractmethod
    def decode(self, ids: Int[Tensor, " n"]) -> str:
        """Return the text of ids; ids that a model predicted may be any."""
