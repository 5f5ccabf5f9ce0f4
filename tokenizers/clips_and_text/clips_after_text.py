"""Clips of a whole sample -> one sequence, to be read and not to be predicted.

Letters in shapes: n tokens, c clips.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from multimodal.batch import Item
from multimodal.protocols import Transform
from multimodal.tokenizers.clip_file import FIELD
from multimodal.tokenizers.clips_and_text.film import Film
from multimodal.tokenizers.clips_and_text.transform import ClipsAndTextTransform
from multimodal.tokenizers.clips_and_text.vocabulary import JointVocabulary


class ClipsAfterTextTransform(Transform):
    """All clips of a sample, after the same words in each: ``[CLS] words [>] clips [SEP]``, as VideoBERT is asked (arXiv 1904.01766).

    Nothing is drawn. Of clips that are too many for a sequence every second, third and so on is taken, in training too.

    Args:
        vocabulary: makes and joins the ids: that of the pretraining.
        template: the words, in which ``[MASK]`` stands for what is to be told; empty: clips alone. VideoBERT's captions: "now let's
            [MASK] the [MASK] to the [MASK], and then [MASK] the [MASK].".
        max_tokens: of a sequence, with its marks: at most that of the pretraining.

    Raises:
        ValueError: ``max_tokens`` has no room for the template and a clip.
    """

    extensions: ClassVar[tuple[str, ...]] = (FIELD,)

    def __init__(self, vocabulary: JointVocabulary, template: str = "", max_tokens: int = 512) -> None:
        self.tokenizer = vocabulary
        self._words = vocabulary.encode_template(template) if template.strip() else None
        said = 0 if self._words is None else len(self._words) + 1  # [>]
        self._room = max_tokens - len(vocabulary.start_ids) - len(vocabulary.end_ids) - said
        if self._room < 1:
            raise ValueError(f"max_tokens {max_tokens} has no room for the {said} ids of the template, the marks and a clip.")
        self._reader = ClipsAndTextTransform(vocabulary)

    def decode(self, data: bytes) -> Film:
        """Return the clips of a file of clips.

        Raises:
            ValueError: it is damaged or of another kind, or its ids are those of another tokenizer.
        """
        film = self._reader.decode(data)
        if not len(film.clips):
            raise ValueError("not a file of clips.")
        return film

    def example(self) -> Item:
        """Return a sequence of one clip."""
        return Item(self.tokenizer.sequence(self._words, torch.tensor([self.tokenizer.clip_offset])), ragged=True)

    def __call__(self, decoded: Any, generator: torch.Generator, train: bool) -> Item:
        """Return ``(n,)`` int64 ids, at most ``max_tokens``."""
        step = -(-len(decoded.clips) // self._room)
        return Item(self.tokenizer.sequence(self._words, decoded.clips[::step]), ragged=True)
