"""One vocabulary for words and clips.

Letters in shapes: n tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.atomic import atomic_file
from multimodal.protocols import Tokenizer
from multimodal.tokenizers.pretrained import CONFIG_NAME, PretrainedTokenizer, load_tokenizer, read_config
from multimodal.tokenizers.text.tokenizer import TextTokenizer

MASKS = ("[MASK]", "<mask>")
"""What the mask is called: by BERT, by RoBERTa. Files of vocabularies read it in a text as one id."""
UNHEARD_OF = "\ue000"
"""A character that is no word of any vocabulary: what it becomes is what stands for unknown ones."""
MASK, FUSION = "[MASK]", "[>]"
WORDS_FOLDER, CLIPS_FOLDER = "words", "clips"


class JointVocabulary(TextTokenizer):
    """Ids of words, then ids of clips, and last the id of ``[>]``, which joins the two (VideoBERT, https://arxiv.org/abs/1904.01766).

    Start, end and mask are the words' own where their tokenizer has them ([CLS], [SEP] and [MASK] of BERT); those that it lacks follow its
    ids, before the clips. The mask hides words and clips alike.

    Args:
        words: makes the ids of words. A ``FileTokenizer`` with ``special_tokens`` brings marks of its own, bytes and characters bring none.
        clips: the tokenizer of clips (``multimodal.tokenizers.pretrained.load_tokenizer``), one id each. Ids that others made are refused.
        num_clips: instead of it, the number of ids of clips, which may then be from anywhere.

    Raises:
        ValueError: both or neither of ``clips`` and ``num_clips``, or clips with several ids each.
    """

    def __init__(self, words: TextTokenizer, clips: Tokenizer | None = None, num_clips: int | None = None) -> None:
        super().__init__()
        if (clips is None) == (num_clips is None):
            raise ValueError("give either clips, the tokenizer of clips, or num_clips, the number of its ids.")
        if clips is not None and len(clips.vocab_sizes) > 1:
            raise ValueError(f"clips must have one id each, a {type(clips).__name__} gives {len(clips.vocab_sizes)}.")
        self.num_clips = clips.vocab_sizes[0] if clips is not None else int(num_clips or 0)
        if self.num_clips < 1:
            raise ValueError(f"num_clips must be at least 1, got {num_clips}.")
        self._parts = (words, clips)  # no modules of this one: their weights are not the model's
        following = iter(range(words.vocab_sizes[0], words.vocab_sizes[0] + 3))
        self.start_ids = words.start_ids or (next(following),)
        self.end_ids = words.end_ids or (next(following),)
        own_mask = _mask_of(words)
        self.mask_id = next(following) if own_mask is None else own_mask
        self.clip_offset = next(following, words.vocab_sizes[0] + 3)
        self.fusion_id = self.clip_offset + self.num_clips

    @property
    def words(self) -> TextTokenizer:
        """What makes the ids of words."""
        return self._parts[0]

    @property
    def clips(self) -> Tokenizer | None:
        """What makes the ids of clips; None where only their number is known."""
        return self._parts[1]

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """The ids of words and marks, of clips, and one."""
        return (self.fusion_id + 1,)

    @property
    def clip_fingerprint(self) -> str:
        """The fingerprint of the tokenizer of clips; empty where only their number is known."""
        return "" if self.clips is None else self.clips.fingerprint()

    @property
    def config(self) -> dict[str, Any]:
        """The settings that are plain: the parts are saved in folders of their own."""
        return {"num_clips": self.num_clips} if self.clips is None else {}

    def is_clip(self, ids: Int[Tensor, "*n"]) -> Bool[Tensor, "*n"]:
        """Return True at ids of clips."""
        return (ids >= self.clip_offset) & (ids < self.fusion_id)

    def marks(self, ids: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Return True at marks of start and end and at ``[>]``, which are never hidden."""
        return torch.isin(ids, ids.new_tensor([*self.start_ids, *self.end_ids, self.fusion_id]))

    def kinds(self) -> tuple[Int[Tensor, " ids"], ...]:
        """Return 0 at ids of words, 1 at ids of clips, -1 at all others."""
        ids = torch.arange(self.vocab_sizes[0])
        words = torch.cat([self.words.kinds()[0], torch.full((self.vocab_sizes[0] - self.words.vocab_sizes[0],), -1)])
        return (torch.where(self.is_clip(ids), 1, torch.where(self.marks(ids) | (ids == self.mask_id), -1, words)),)

    def begins(self, ids: Int[Tensor, " n"]) -> Bool[Tensor, " n"] | None:
        """Return True where a word begins, as the tokenizer of words says; every clip and mark is one. None: it does not say."""
        inside = (ids < self.clip_offset) & ~self.marks(ids)
        found = self.words.begins(ids[inside])
        if found is None:
            return None
        begins = torch.ones_like(inside)
        begins[inside] = found
        begins[1:] |= ~inside[:-1]
        return begins

    def encode_text(self, text: str) -> Int[Tensor, " n"]:
        """Return the ids of words."""
        return self.words.encode_text(text)

    def encode_template(self, text: str) -> Int[Tensor, " n"]:
        """Return the ids of a text in which ``[MASK]`` stands for what is to be told: "now let me show you how to [MASK] the [MASK]."."""
        pieces = [self.encode_text(piece.strip()) for piece in text.split(MASK)]
        gap = torch.tensor([self.mask_id])
        return torch.cat([pieces[0], *(part for piece in pieces[1:] for part in (gap, piece))])

    def encode_clips(self, ids: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Return the ids of clips in this vocabulary.

        Args:
            ids: of the tokenizer of clips, from 0.

        Raises:
            ValueError: an id that it does not have.
        """
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.num_clips:
            raise ValueError(f"ids of clips must be from 0 to {self.num_clips - 1}, got {int(ids.min())} to {int(ids.max())}.")
        return ids + self.clip_offset

    def sequence(self, words: Int[Tensor, " w"] | None = None, clips: Int[Tensor, " c"] | None = None) -> Int[Tensor, " n"]:
        """Return what the encoder is given: ``[CLS] words [>] clips [SEP]``, or one of the two between ``[CLS]`` and ``[SEP]``.

        Args:
            words: ids of words; None: of a film without words.
            clips: ids of clips in this vocabulary (``encode_clips``); None: of a text without a film.
        """
        fusion = torch.tensor([self.fusion_id])
        parts = [words, fusion, clips] if words is not None and clips is not None else [words, clips]
        return self.mark(torch.cat([part for part in parts if part is not None]))

    def decode(self, ids: Int[Tensor, " n"]) -> str:
        """Return ids to be read: texts as their tokenizer has them, clips as ``<17>``, and ``[>]``; marks of start and end are left out."""
        return " ".join(self._read(ids))

    def _read(self, ids: Tensor) -> Iterator[str]:
        left_out = {*self.start_ids, *self.end_ids}
        kept = [number for number in ids.tolist() if number not in left_out]
        for said, group in groupby(kept, key=lambda number: number < self.clip_offset and number != self.mask_id):
            if said:
                yield self.words.decode(torch.tensor(list(group)))
            else:
                yield from map(self._name, group)

    def _name(self, number: int) -> str:
        return {self.mask_id: MASK, self.fusion_id: FUSION}.get(number, f"<{number - self.clip_offset}>")

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the fingerprints of the parts and of the ids of clips and marks."""
        said = [self.words.fingerprint(), self.clip_fingerprint, self.num_clips, *self.start_ids, *self.end_ids, self.mask_id]
        return hashlib.sha256(json.dumps([type(self).__name__, self.version, said]).encode()).hexdigest()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the config, and the parts into folders of their own inside."""
        self._saved(self.words).save_pretrained(Path(folder) / WORDS_FOLDER)
        if self.clips is not None:
            self._saved(self.clips).save_pretrained(Path(folder) / CLIPS_FOLDER)
        said = {"class": f"{type(self).__module__}.{type(self).__name__}", "fingerprint": self.fingerprint(), "config": self.config}
        with atomic_file(Path(folder) / CONFIG_NAME) as file:
            file.write((json.dumps(said, indent=2) + "\n").encode())

    @staticmethod
    def _saved(part: Tokenizer) -> PretrainedTokenizer:
        if not isinstance(part, PretrainedTokenizer):
            raise ValueError(f"a {type(part).__name__} cannot be saved.")
        return part

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load what ``save_pretrained`` wrote.

        Raises:
            ValueError: the folder is missing or incomplete, or not what was saved.
        """
        saved = read_config(folder)
        words = load_tokenizer(str(Path(folder) / WORDS_FOLDER))
        if not isinstance(words, TextTokenizer):
            raise ValueError(f"{Path(folder) / WORDS_FOLDER} holds a {type(words).__name__}, which makes no ids of words.")
        num_clips = saved["config"].get("num_clips")
        clips = load_tokenizer(str(Path(folder) / CLIPS_FOLDER)) if num_clips is None else None
        vocabulary = cls(words, clips, num_clips)
        if vocabulary.fingerprint() != saved["fingerprint"]:
            raise ValueError(f"{folder} is not what was saved: its fingerprint differs from the one in {CONFIG_NAME}.")
        return vocabulary.eval()


def _mask_of(words: TextTokenizer) -> int | None:
    """Return the mask of a vocabulary that has one: its name is read as one id, which is no part of a text."""
    unknown = words.encode_text(UNHEARD_OF).tolist()
    for name in MASKS:
        ids = words.encode_text(name)
        if len(ids) == 1 and ids.tolist() != unknown and words.decode(ids).strip() == "":
            return int(ids)
    return None
