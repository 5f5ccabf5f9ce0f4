"""Vocabularies of Hugging Face's ``tokenizer.json``.

Letters in shapes: n tokens.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Int
from torch import Tensor

from multimodal.tokenizers.pretrained import read_config
from multimodal.tokenizers.text.tokenizer import TextTokenizer

FILE_NAME = "tokenizer.json"


class FileTokenizer(TextTokenizer):
    """The tokenizer in a ``tokenizer.json``, as every fast tokenizer of transformers saves it. Nothing is downloaded or executed.

    Truncation and padding that the file asks for are turned off, and no special tokens are added: a text is cut by its transform.

    Args:
        path: of the file, or of the folder that holds it.
    """

    def __init__(self, path: str) -> None:
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

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """One more than the highest id, added tokens included."""
        return (1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=0),)

    def encode_text(self, text: str) -> Int[Tensor, " n"]:
        """Return the ids of a text."""
        return torch.tensor(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=torch.int64)

    def decode(self, ids: Int[Tensor, " n"]) -> str:
        """Return the text; special tokens are left out."""
        return self._tokenizer.decode(ids.tolist(), skip_special_tokens=True)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the file."""
        return hashlib.sha256(self._content).hexdigest()

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
        tokenizer = cls(str(Path(folder) / FILE_NAME))
        if tokenizer.fingerprint() != saved["fingerprint"]:
            raise ValueError(f"{folder} is not what was saved: the SHA-256 of {FILE_NAME} differs from the fingerprint in its config.")
        return tokenizer.eval()
