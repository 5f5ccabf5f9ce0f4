"""Two texts -> one sequence of ids, with the text that each is of.

Letters in shapes: n tokens, a and b tokens of the two texts, m tokens of both with marks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from multimodal.batch import Item
from multimodal.protocols import LabelledTransform, Moments
from multimodal.tokenizers.text.decode import decode_text
from multimodal.tokenizers.text.describe import describe_text
from multimodal.tokenizers.text.json_entries import read_object, read_text
from multimodal.tokenizers.text.tokenizer import TextTokenizer

NUM_TYPES = 2


class TextPairTransform(LabelledTransform):
    """Two texts of a sample as ``[CLS] first [SEP] second [SEP]``, whose tokens are of type 0 up to the first [SEP] and then 1 (BERT).

    Pairs that are too long lose tokens at the end of the longer text, until both are equally long, then of both (longest first). With
    ``entries`` the texts stand in the metadata instead of in files of their own. Departure: texts are parted as BERT does it, also where
    a model of another family would put more marks between them (RoBERTa).

    Args:
        tokenizer: makes the ids, and must mark the ends of texts: a ``FileTokenizer`` with ``special_tokens``.
        max_tokens: tokens of both texts, with the marks.
        fields: the files of the two texts. ``shards write`` names them so: folders or ``--text-columns`` a and b become ``a.txt`` and
            ``b.txt``.
        entries: names of two entries of the metadata (JSON) to read instead; None: the files are read.
        max_bytes: longer files are refused before they are read.

    Raises:
        ValueError: not two different names, a tokenizer without marks, or ``max_tokens`` that leaves no room for a token of each.
    """

    num_types: ClassVar[int] = NUM_TYPES

    def __init__(
        self,
        tokenizer: TextTokenizer,
        max_tokens: int = 128,
        fields: tuple[str, str] = ("a.txt", "b.txt"),
        entries: tuple[str, str] | None = None,
        max_bytes: int = 2**24,
    ) -> None:
        for name, value in {"fields": fields, "entries": entries or ("0", "1")}.items():
            if len(value) != 2 or value[0] == value[1]:
                raise ValueError(f"{name} must be two different names, got {list(value)}.")
        check_marks(tokenizer)
        self._room = max_tokens - marks_of_pair(tokenizer)
        if self._room < 2:
            raise ValueError(f"max_tokens must be at least {max_tokens - self._room + 2}, got {max_tokens}.")
        self.tokenizer, self.max_tokens, self.max_bytes = tokenizer, max_tokens, max_bytes
        self.fields, self.entries = tuple(fields), tuple(entries) if entries else None

    @property
    def extensions(self) -> tuple[str, ...]:  # type: ignore[override]
        """The field of the first text, or of both."""
        return ("json",) if self.entries else self.fields[:1]

    @property
    def label_extensions(self) -> tuple[str, ...]:  # type: ignore[override]
        """The field of the second text, or of both."""
        return ("json",) if self.entries else self.fields[1:]

    def decode(self, data: bytes) -> Int[Tensor, " a"]:
        """Return the ids of the whole first text.

        Raises:
            ValueError: ``decode_text`` refuses the file, or the metadata have no such entry.
        """
        return self._ids(data, 0)

    def decode_labels(self, data: bytes) -> Int[Tensor, " b"]:
        """Return the ids of the whole second text.

        Raises:
            ValueError: as ``decode``.
        """
        return self._ids(data, 1)

    def _ids(self, data: bytes, number: int) -> Tensor:
        if self.entries is None:
            return self.tokenizer.encode_text(decode_text(data, self.max_bytes))
        return self.tokenizer.encode_text(read_text(read_object(data, self.max_bytes), self.entries[number]))

    def describe(self, data: bytes) -> Mapping[str, float | Moments]:
        """Return characters, words and lines of the first text; see ``describe_text``."""
        if self.entries is None:
            return describe_text(data, self.max_bytes)
        return describe_text(read_text(read_object(data, self.max_bytes), self.entries[0]).encode("utf-8", "replace"))

    def example(self) -> Item:
        """Return a pair of texts of one token each."""
        one = torch.zeros(1, dtype=torch.int64)
        return Item(mark_pair(self.tokenizer, one, one), ragged=True)

    def labelled(self, decoded: Int[Tensor, " a"], labels: Any | None, generator: torch.Generator, train: bool) -> Item:
        """Return ``(m, 2)`` int64, the id and the type of each token, at most ``max_tokens``.

        Raises:
            ValueError: the sample has no second text.
        """
        if labels is None:
            raise ValueError(f"the sample has no second text: no field {self.label_extensions[0]}.")
        first, second = longest_first(len(decoded), len(labels), self._room)
        return Item(mark_pair(self.tokenizer, decoded[:first], labels[:second]), ragged=True)


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens of two texts are kept, as Hugging Face's tokenizers do it (``longest_first``).

    Args:
        first: tokens of the first text.
        second: of the second.
        room: tokens of both, at most.
    """
    if first + second <= room:
        return first, second
    shorter, longer = sorted((first, second))
    longer = max(shorter, room - shorter)
    if shorter + longer > room:
        shorter, longer = room // 2, room - room // 2
    return (longer, shorter) if first > second else (shorter, longer)


def mark_pair(tokenizer: TextTokenizer, first: Int[Tensor, " a"], second: Int[Tensor, " b"]) -> Int[Tensor, "m 2"]:
    """Return ids and types of two texts with the tokenizer's marks: those of a start before, those of an end after each."""
    head = tokenizer.mark(first)
    tail = torch.cat([second, second.new_tensor(tokenizer.end_ids)])
    return torch.stack([torch.cat([head, tail]), torch.cat([torch.zeros_like(head), torch.ones_like(tail)])], 1)


def marks_of_pair(tokenizer: TextTokenizer) -> int:
    """Return how many marks ``mark_pair`` adds."""
    return len(tokenizer.start_ids) + 2 * len(tokenizer.end_ids)


def check_marks(tokenizer: TextTokenizer) -> None:
    """Look whether a tokenizer marks the ends of texts.

    Raises:
        ValueError: it does not.
    """
    if not tokenizer.end_ids:
        raise ValueError(
            f"{type(tokenizer).__name__} puts no mark after a text, so that two texts would run into each other: use a FileTokenizer with "
            "special_tokens: true."
        )
