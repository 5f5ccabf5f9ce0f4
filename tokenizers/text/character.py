"""Characters of an alphabet as tokens.

Letters in shapes: n tokens.
"""

from __future__ import annotations

import re
import unicodedata

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.tokenizers.text.tokenizer import TextTokenizer
from multimodal.tokenizers.text.words import begins_after

SPACE = " "
APOSTROPHES = str.maketrans("\u2019\u02bc\u2018", "'''")
"""What is written for an apostrophe."""


class CharacterTokenizer(TextTokenizer):
    """The characters of an alphabet: the id of a character is its place there. So transcripts are read for speech recognition.

    A text is brought to Unicode's composed form (NFC), and to lower case where wanted. Of characters that the alphabet lacks, typographic
    apostrophes become plain ones, an accented letter becomes the letter without accents if the alphabet has that, and other letters and
    digits are left out, or refused; all else (white space, punctuation) becomes a space, or nothing in an alphabet without a space. Of
    several spaces one is left, at the ends none.

    Args:
        alphabet: the characters, each once, such as "abcdefghijklmnopqrstuvwxyz' ".
        lower_case: whether texts are read in lower case.
        strict: whether a text with a letter or digit that is not in the alphabet is refused, instead of read without it.

    Raises:
        ValueError: the alphabet is empty, has a character twice, one that is not in composed form, white space other than the space, or a
            capital with ``lower_case``.
    """

    def __init__(self, alphabet: str, lower_case: bool = True, strict: bool = False) -> None:
        super().__init__()
        if not alphabet:
            raise ValueError("alphabet is empty: name its characters.")
        if twice := sorted({character for character in alphabet if alphabet.count(character) > 1}):
            raise ValueError(f"alphabet has {''.join(twice)!r} more than once.")
        if wrong := [
            x for x in alphabet if unicodedata.normalize("NFC", x) != x or unicodedata.combining(x) or (x.isspace() and x != SPACE)
        ]:
            raise ValueError(f"alphabet has {''.join(wrong)!r}, which no text has in composed form (NFC) with plain spaces.")
        if lower_case and (wrong := [character for character in alphabet if character.lower() != character]):
            raise ValueError(
                f"alphabet has {''.join(wrong)!r}, which no text in lower case has: write them so, or set lower_case to false."
            )
        self.alphabet, self.lower_case, self.strict = alphabet, lower_case, strict
        self._ids = {character: number for number, character in enumerate(alphabet)}

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """The number of characters of the alphabet."""
        return (len(self.alphabet),)

    def normalized(self, text: str) -> str:
        """Return a text as it is read: made of the alphabet alone.

        Raises:
            ValueError: with ``strict``, it has a letter or digit that the alphabet lacks.
        """
        text = unicodedata.normalize("NFC", text)
        if self.lower_case:
            text = unicodedata.normalize("NFC", text.lower())
        known = "".join(character if character in self._ids else self._known(character) for character in text)
        return re.sub(" +", SPACE, known).strip(SPACE) if SPACE in self._ids else known

    def _known(self, character: str) -> str:
        """Return what a character that the alphabet lacks is read as."""
        if (plain := character.translate(APOSTROPHES)) in self._ids:
            return plain
        if (base := unicodedata.normalize("NFD", character)[0]) in self._ids:
            return base
        if unicodedata.category(character)[0] not in "LNM":
            return SPACE if SPACE in self._ids else ""
        if self.strict:
            raise ValueError(f"the text has {character!r}, which the alphabet lacks.")
        return ""

    def encode_text(self, text: str) -> Int[Tensor, " n"]:
        """Return an id for each character of the text as it is read.

        Raises:
            ValueError: as ``normalized``.
        """
        return torch.tensor([self._ids[character] for character in self.normalized(text)], dtype=torch.int64)

    def begins(self, ids: Int[Tensor, " n"]) -> Bool[Tensor, " n"] | None:
        """Return True at the first character after a space, which belongs to the word before it; None: the alphabet has no space."""
        return begins_after(ids == self._ids[SPACE]) if SPACE in self._ids else None

    def decode(self, ids: Int[Tensor, " n"]) -> str:
        """Return the text; ids of no character are left out."""
        return "".join(self.alphabet[number] for number in ids.tolist() if 0 <= number < len(self.alphabet))
