"""Vocabularies of Hugging Face's ``tokenizer.json``.

Letters in shapes: n tokens.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.tokenizers.pretrained import read_config
from multimodal.tokenizers.text.tokenizer import TextTokenizer
from multimodal.tokenizers.text.words import WordTable, word_table

FILE_NAME = "tokenizer.json"
PROBE = "a"
"""A text whose ids show what is put around them."""


class FileTokenizer(TextTokenizer):
    """The tokenizer in a ``tokenizer.json``, as every fast tokenizer of transformers saves it. Nothing is downloaded or executed.

    Truncation and padding that the file asks for are turned off: a text is cut by its transform.

    Args:
        path: of the file, or of the folder that holds it.
        special_tokens: whether windows get the tokens that the file puts around a text: [CLS] and [SEP] of BERT. Pretrained encoders expect
            them.
        vocab_size: number of ids; None: one more than the highest id of the file. Some models pad their tables: ModernBERT to 50368.

    Raises:
        ValueError: there is no such file, it is none of these, or ``vocab_size`` is below its ids.
    """

    def __init__(self, path: str, special_tokens: bool = False, vocab_size: int | None = None) -> None:
        super().__init__()
        from tokenizers import Tokenizer

        file = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
        if not file.is_file():
            raise ValueError(f"no tokenizer at {file}: give the path of a {FILE_NAME}, or of the folder that holds one.")
        self._content = file.read_bytes()
        try:
            self._tokenizer = Tokenizer.from_str(self._content.decode("utf-8"))
        except Exception as error:  # the library raises Exception itself
            raise ValueError(f"{file} is no {FILE_NAME}: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        highest = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        if vocab_size is not None and vocab_size <= highest:
            raise ValueError(f"vocab_size {vocab_size} is too small: {file} has ids up to {highest}.")
        self._vocab_size = vocab_size or highest + 1
        if special_tokens:
            self.start_ids, self.end_ids = self._marks()

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """``vocab_size``, or one more than the highest id, added tokens included."""
        return (self._vocab_size,)

    @property
    def special_ids(self) -> set[int]:
        """The special tokens of the file, and ids up to ``vocab_size`` that it does not have."""
        there = self._tokenizer.get_vocab(with_added_tokens=True).values()
        marked = {number for number, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        return {*self.start_ids, *self.end_ids, *marked, *(set(range(self._vocab_size)) - set(there))}

    def encode_text(self, text: str) -> Int[Tensor, " n"]:
        """Return the ids of a text."""
        return torch.tensor(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=torch.int64)

    def located(self, text: str) -> tuple[Int[Tensor, " n"], Int[Tensor, "n 2"]]:
        """Return the ids of a text, and of each the characters that it was made of: from, and before which."""
        found = self._tokenizer.encode(text, add_special_tokens=False)
        return torch.tensor(found.ids, dtype=torch.int64), torch.tensor(found.offsets, dtype=torch.int64).view(-1, 2)

    def decode(self, ids: Int[Tensor, " n"]) -> str:
        """Return the text; special tokens are left out."""
        return self._tokenizer.decode(ids.tolist(), skip_special_tokens=True)

    def begins(self, ids: Int[Tensor, " n"]) -> Bool[Tensor, " n"] | None:
        """Return True where a word begins; None: the ids of this vocabulary do not tell words apart (see ``word_table``)."""
        return None if self._words is None else self._words.begins(ids)

    @cached_property
    def _words(self) -> WordTable | None:
        return word_table(json.loads(self._content), self._tokenizer.get_vocab(with_added_tokens=True), self._vocab_size)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the file and, where there are any, of the ids around a text and the number of ids."""
        said = (self.start_ids, self.end_ids, self.config["vocab_size"])
        return hashlib.sha256(self._content + (repr(said).encode() if any(said) else b"")).hexdigest()

    def _marks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the ids that the file puts before and after a text."""
        plain = self._tokenizer.encode(PROBE, add_special_tokens=False).ids
        marked = self._tokenizer.encode(PROBE, add_special_tokens=True).ids
        start = next((i for i in range(len(marked)) if plain and marked[i : i + len(plain)] == plain), None)
        if start is None:
            raise ValueError(f"special_tokens cannot be told apart: this tokenizer makes {plain} of {PROBE!r}, and {marked} with them.")
        return tuple(marked[:start]), tuple(marked[start + len(plain) :])

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the config, and a copy of the file beside it."""
        super().save_pretrained(folder)
        partial = Path(folder) / (FILE_NAME + ".tmp")
        partial.write_bytes(self._content)
        partial.replace(Path(folder) / FILE_NAME)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load the copy that ``save_pretrained`` wrote, wherever the folder has moved.

        Raises:
            ValueError: the folder is missing or incomplete, or the file is not the one that was saved.
        """
        saved = read_config(folder)
        settings = {name: saved["config"][name] for name in ("special_tokens", "vocab_size") if name in saved["config"]}
        tokenizer = cls(str(Path(folder) / FILE_NAME), **settings)
        if tokenizer.fingerprint() != saved["fingerprint"]:
            raise ValueError(
                f"{folder} is not what was saved: the SHA-256 of {FILE_NAME} and its settings differs from the fingerprint in its config."
            )
        return tokenizer.eval()
