"""Files of words and their tags -> windows of ids, with the class of each word at its first token.

Letters in shapes: n tokens of all windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from multimodal.batch import Item
from multimodal.protocols import LabelledTransform, Moments
from multimodal.tokenizers.text.tagged_words import TaggedWords, read_tagged_words
from multimodal.tokenizers.text.tokenizer import TextTokenizer
from multimodal.tokenizers.text.windows import Window, check_sizes, cut_windows
from multimodal.windowed import TagColumn, no_labels, pack

STAND_IN = "?"
"""What is read instead of a word that a tokenizer makes nothing of."""


class WordTagTransform(LabelledTransform):
    """Words cut into tokens, with the class of each word at its first token (BERT's way of tagging, https://arxiv.org/abs/1810.04805).

    A text that is too long is cut into windows between words. In training one of them is drawn; in evaluation there are all, end to end,
    and each word is told by one of them, so that none is left out. Words are read with a blank before all but the first. A word of more
    tokens than a window has room for loses its last ones; one that the tokenizer makes nothing of (a control character) is read as "?".

    Args:
        tokenizer: makes the ids.
        classes: the tags, in the order of their numbers, such as O, B-PER, I-PER.
        max_tokens: tokens of a window, with those that mark its start and end.
        overlap: tokens that a window shares with the one before it, so that words at its ends are told by the one that sees more around.
        max_bytes: longer files are refused before they are read.

    Raises:
        ValueError: there are no classes or one twice, or windows have no room.
    """

    extensions: ClassVar[tuple[str, ...]] = ("conll", "json")
    label_extensions = extensions

    def __init__(
        self, tokenizer: TextTokenizer, classes: Sequence[str], max_tokens: int = 256, overlap: int = 32, max_bytes: int = 2**24
    ) -> None:
        if not classes or len(set(classes)) < len(classes):
            raise ValueError(f"classes must be different tags, at least one, got {list(classes)}.")
        self._marks = len(tokenizer.start_ids), len(tokenizer.end_ids)
        check_sizes(max_tokens, overlap, sum(self._marks))
        self.tokenizer, self.classes, self.max_tokens, self.overlap, self.max_bytes = (
            tokenizer,
            list(classes),
            max_tokens,
            overlap,
            max_bytes,
        )
        self._numbers = {name: number for number, name in enumerate(classes)}

    def decode(self, data: bytes) -> TaggedWords:
        """Return words and tags.

        Raises:
            ValueError: see ``read_tagged_words``.
        """
        return read_tagged_words(data, self.max_bytes)

    def decode_labels(self, data: bytes) -> list[int] | None:
        """Return the class of each word; None where the file has no tags.

        Raises:
            ValueError: a tag is none of the classes.
        """
        found = read_tagged_words(data, self.max_bytes)
        for word, tag in zip(found.words, found.tags or (), strict=False):
            if tag not in self._numbers:
                raise ValueError(f"the tag {tag!r} of {word!r} is none of the classes {', '.join(self.classes)}.")
        return None if found.tags is None else [self._numbers[tag] for tag in found.tags]

    def describe(self, data: bytes) -> Mapping[str, float | Moments]:
        """Return the number of words and of sentences."""
        found = read_tagged_words(data, self.max_bytes)
        return {"words": len(found.words), "sentences": len(set(found.sentences))}

    def example(self) -> Item:
        """Return one word of the first class."""
        return self.labelled(TaggedWords([STAND_IN], None, [0]), [0], torch.Generator(), train=False)

    def labelled(self, decoded: TaggedWords, labels: list[int] | None, generator: torch.Generator, train: bool) -> Item:
        """Return ``(n,)`` int64 ids; labels ``(n, 4)`` as ``multimodal.windowed.TagColumn`` says; not in training also the words."""
        pieces = self._pieces(decoded.words)
        windows = cut_windows([len(piece) for piece in pieces], self.max_tokens - sum(self._marks), self.overlap)
        if train:
            windows = [windows[int(torch.randint(len(windows), (), generator=generator))]]
        tags = [-1] * len(pieces) if labels is None else labels
        parts = [self._window(number, window, pieces, tags, decoded.sentences) for number, window in enumerate(windows)]
        values, rows = (torch.cat(part) for part in zip(*parts, strict=True))
        return Item(values, tokenizer_values=None if train else pack(decoded.words), ragged=True, labels=rows)

    def _pieces(self, words: Sequence[str]) -> list[Tensor]:
        """Return the ids of each word."""
        known: dict[str, Tensor] = {}
        room = self.max_tokens - sum(self._marks)
        return [self._known(" " + word if number else word, known)[:room] for number, word in enumerate(words)]

    def _known(self, word: str, known: dict[str, Tensor]) -> Tensor:
        if word not in known:
            ids = self.tokenizer.encode_text(word)
            known[word] = ids if len(ids) else self.tokenizer.encode_text(STAND_IN)
            if not len(known[word]):
                raise ValueError(f"the tokenizer makes no token of the word {word.strip()!r}, and none of {STAND_IN!r}.")
        return known[word]

    def _window(
        self, number: int, window: Window, pieces: Sequence[Tensor], tags: Sequence[int], sentences: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Return the ids of a window with its marks, and their labels."""
        ids = self.tokenizer.mark(torch.cat(list(pieces[window.first : window.last])))
        rows = no_labels(len(ids), TagColumn)
        rows[:, TagColumn.WINDOW] = number
        place = self._marks[0]
        for word in range(window.first, window.last):
            if window.own_first <= word < window.own_last:
                rows[place, TagColumn.WORD :] = torch.tensor([word, sentences[word], tags[word]])
            place += len(pieces[word])
        return ids, rows
