"""Where words begin among the ids of a text.

Letters in shapes: n tokens, v ids of the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

BYTE_LEVEL_SPACE, METASPACE = "\u0120", "\u2581"
BYTE_LEVEL_BREAKS = ("\u0109", "\u010a", "\u010d")
"""How byte-level vocabularies write a tab, a line feed and a carriage return."""


class WordTable(NamedTuple):
    """What the ids of a vocabulary say about words.

    Args:
        starts: ``(v,)`` bool, True at ids that begin a word.
        ends: ``(v,)`` bool, True at ids after which a word begins, whatever follows.
    """

    starts: Tensor
    ends: Tensor

    def begins(self, ids: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Return True at ids where a word begins; the first id of a text begins one in any case, and may be False here."""
        starts, ends = self.starts.to(ids.device), self.ends.to(ids.device)
        begun = starts[ids]
        begun[1:] |= ends[ids[:-1]]
        return begun


def word_table(file: Mapping[str, Any], vocab: Mapping[str, int], vocab_size: int) -> WordTable | None:
    """Return the table of a ``tokenizer.json``; None where its ids do not tell words apart.

    A prefix marks what goes on with a word (WordPiece: ``##``), or a suffix what ends one (``</w>``), or the space before a word is a part
    of it: as U+0120 in byte-level vocabularies, as U+2581 in those of SentencePiece. Every id of a vocabulary of whole words begins one.
    Added tokens, special ones among them, are words of their own.

    Args:
        file: its content.
        vocab: token -> id, added tokens included.
        vocab_size: number of ids, all below it.
    """
    model, added = file.get("model") or {}, {token["content"] for token in file.get("added_tokens") or ()}
    prefix, suffix = model.get("continuing_subword_prefix"), model.get("end_of_word_suffix")
    pieces = json.dumps([file.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")], ensure_ascii=False)
    starts, ends = torch.zeros(2, vocab_size, dtype=torch.bool).unbind(0)
    if prefix or model.get("type") == "WordLevel":
        begun = {token for token in vocab if not (prefix and token.startswith(prefix))}
        ended: set[str] = set()
    elif suffix:
        begun, ended = set(), {token for token in vocab if token.endswith(suffix)}
    elif '"ByteLevel"' in pieces:
        begun = {token for token in vocab if token.startswith((BYTE_LEVEL_SPACE, *BYTE_LEVEL_BREAKS))}
        ended = {token for token in vocab if token.endswith(BYTE_LEVEL_BREAKS)}
    elif METASPACE in pieces:
        begun, ended = {token for token in vocab if token.startswith(METASPACE)}, set()
    else:
        return None
    for table, tokens in ((starts, begun), (ends, ended)):
        table[[vocab[token] for token in tokens | (added & vocab.keys())]] = True
    return WordTable(starts, ends)


def begins_after(space: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Return True at the first token after each white space; a space belongs to the word before it.

    Args:
        space: True at white space.
    """
    begun = ~space
    begun[1:] &= space[:-1]  # the first token has nothing before it
    return begun
