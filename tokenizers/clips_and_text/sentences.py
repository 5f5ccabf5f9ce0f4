"""Captions that break off where the screen is full -> sentences with their times."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from multimodal.tokenizers.clips_and_text.captions import Caption

END = re.compile("[.!?\u2026]+[\"'\u201d\u2019)\\]]*(?=\\s|$)|[\u3002\uff01\uff1f]+[\u201d\u2019\u300d\u300f\uff09]*")
"""Where a sentence ends; between Chinese and Japanese ones there is no space."""


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text, cut after each mark that ends one and at line ends; a text without either is one."""
    return [piece for line in text.splitlines() for piece in _pieces(line)]


def join_sentences(captions: Sequence[Caption], max_pause_s: float = 3.0) -> list[Caption]:
    """Return captions cut and joined to sentences, which VideoBERT calls for; captions without any full stop come back as they are.

    Where a sentence begins or ends inside a caption, its time is that share of the caption's time that it is of the characters.

    Args:
        captions: in order of time.
        max_pause_s: a sentence ends at a pause longer than this, in seconds, at least 0.
    """
    if max_pause_s < 0:
        raise ValueError(f"max_pause_s must be at least 0, got {max_pause_s}.")
    if not any(END.search(caption.text) for caption in captions):
        return list(captions)
    found: list[Caption] = []
    open_ones: list[Caption] = []
    for piece, ends in _timed_pieces(captions):
        if open_ones and piece.start - open_ones[-1].end > max_pause_s:
            found.append(_joined(open_ones))
            open_ones = []
        open_ones.append(piece)
        if ends:
            found.append(_joined(open_ones))
            open_ones = []
    return sorted([*found, _joined(open_ones)] if open_ones else found)


def _timed_pieces(captions: Sequence[Caption]) -> Iterator[tuple[Caption, bool]]:
    """Yield the pieces of captions with their times, and whether a sentence ends with them."""
    for start, end, text in captions:
        per_character = (end - start) / len(text)
        begin = 0
        for piece in _pieces(text):
            begin = text.index(piece, begin)
            stop = begin + len(piece)
            match = END.search(piece[-8:])
            last = start + stop * per_character if stop < len(text) else end
            yield Caption(start + begin * per_character, last, piece), match is not None and piece.endswith(match.group())
            begin = stop


def _pieces(line: str) -> list[str]:
    ends = [match.end() for match in END.finditer(line)]
    cut = [line[start:stop].strip() for start, stop in zip([0, *ends], [*ends, len(line)], strict=True)]
    return [piece for piece in cut if piece]


def _joined(pieces: Sequence[Caption]) -> Caption:
    return Caption(min(piece.start for piece in pieces), max(piece.end for piece in pieces), " ".join(piece.text for piece in pieces))
