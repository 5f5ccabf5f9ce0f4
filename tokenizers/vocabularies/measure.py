"""How well a vocabulary fits texts."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from multimodal.tokenizers.vocabularies.train import SPECIALS, UNKNOWN

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 1000
"""Texts that are encoded at once."""


class Figures(NamedTuple):
    """What was counted.

    Args:
        vocab_size: ids of the vocabulary.
        characters: of the texts, as they were read.
        words: parts of the texts between white space.
        tokens: of the texts, without [CLS] and [SEP].
        unknown: tokens that are [UNK].
    """

    vocab_size: int
    characters: int
    words: int
    tokens: int
    unknown: int


def measure(tokenizer: Tokenizer, texts: Iterable[str]) -> Figures:
    """Count the tokens of texts, which need not be in memory.

    Raises:
        ValueError: no token comes of them.
    """
    unknown = SPECIALS.index(UNKNOWN)
    characters = words = tokens = unknowns = 0
    lines = iter(texts)
    while some := list(islice(lines, BATCH)):
        characters += sum(map(len, some))
        words += sum(len(text.split()) for text in some)
        for encoded in tokenizer.encode_batch(some, add_special_tokens=False):
            tokens += len(encoded.ids)
            unknowns += encoded.ids.count(unknown)
    if not tokens:
        raise ValueError("the texts make no tokens: they hold only what the vocabulary leaves out, such as white space.")
    return Figures(tokenizer.get_vocab_size(), characters, words, tokens, unknowns)
