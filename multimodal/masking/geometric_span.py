"""Hide stretches of words of random length.

Letters in shapes: n tokens, i items, w words of all items end to end.
"""

import math

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.masking.marks import budget
from multimodal.masking.noise import uniform
from multimodal.masking.words import Words, words_of
from multimodal.protocols import Masking, Tokens

LENGTH = 5
"""Stream of the noise of lengths, apart from those of places and of corruptions."""


class GeometricSpanMasking(Masking):
    """Hide spans of whole words whose lengths are geometric (SpanBERT, https://arxiv.org/abs/1907.10529).

    A token that is not hidden yet is drawn; its word and those after it, as many as the drawn length says, are hidden; and so on, until
    ``round(mask_ratio * length)`` tokens are. A span ends early at the end of its item, and before the word that would go over that number:
    SpanBERT cuts this word. Marks (``Tokens.marks``) are not hidden and do not count. Where nothing says where words begin, every token
    is a word.

    Args:
        mask_ratio: share of the tokens to hide, in (0, 1).
        stop: chance that a span ends after each of its words, in (0, 1).
        max_words: of a span; the lengths are distributed as if drawn again until one is not above it. SpanBERT: 0.2 and 10, so 3.8 on
            average.

    Raises:
        ValueError: a setting outside its range.
    """

    def __init__(self, mask_ratio: float = 0.15, stop: float = 0.2, max_words: int = 10) -> None:
        if not (0 < mask_ratio < 1 and 0 < stop < 1):
            raise ValueError(f"mask_ratio and stop must be in (0, 1), got {mask_ratio} and {stop}.")
        if max_words < 1:
            raise ValueError(f"max_words must be at least 1, got {max_words}.")
        self.mask_ratio, self.stop, self.max_words = mask_ratio, stop, max_words

    def __call__(self, tokens: Tokens, seed: Int[Tensor, " i"]) -> Bool[Tensor, " n"]:
        """Return True where a token is hidden."""
        words, left = words_of(tokens), budget(tokens, self.mask_ratio)
        noise, length = uniform(seed[tokens.item], tokens.position), self._lengths(words, seed)
        hidden, open_ = torch.zeros_like(words.size, dtype=torch.bool), words.size > 0
        while True:
            open_ = open_ & ~hidden & (words.size <= left[words.item])  # what is left only shrinks: longer words never fit again
            if not open_.any():
                return words.tokens(hidden, tokens.marks)
            first = _drawn(tokens, words, noise, open_)
            span = _span(words, first, length, hidden, left)
            left = left.index_add(0, words.item, -(words.size * (span & ~hidden)))
            hidden = hidden | span

    def _lengths(self, words: Words, seed: Int[Tensor, " i"]) -> Int[Tensor, " w"]:
        """Return how many words a span has that begins at each."""
        noise = uniform(seed[words.item], words.first, LENGTH).double()
        below = 1 - (1 - self.stop) ** self.max_words
        return (torch.log1p(-noise * below) / math.log1p(-self.stop)).floor().long().clamp(max=self.max_words - 1) + 1


def _drawn(tokens: Tokens, words: Words, noise: Tensor, open_: Bool[Tensor, " w"]) -> Int[Tensor, " i"]:
    """Return the word of each item with the token of least noise among the words that are open; -1 without one."""
    noise = noise.masked_fill(~open_[words.of_token], torch.inf)
    least = torch.full((len(tokens.lengths),), torch.inf, device=noise.device).scatter_reduce(0, tokens.item, noise, "amin")
    found = (noise == least[tokens.item]) & noise.isfinite()
    number = torch.where(found, words.of_token, len(words.size))
    first = torch.full_like(tokens.lengths, len(words.size)).scatter_reduce(0, tokens.item, number, "amin")
    return torch.where(first < len(words.size), first, -1)


def _span(
    words: Words, first: Int[Tensor, " i"], length: Int[Tensor, " w"], hidden: Bool[Tensor, " w"], left: Int[Tensor, " i"]
) -> Bool[Tensor, " w"]:
    """Return the words of the span that begins at ``first`` in each item, as far as what is ``left`` allows."""
    number, first = torch.arange(len(words.size), device=first.device), first[words.item]
    inside = (first >= 0) & (number >= first) & (number < first + length[first.clamp(min=0)])
    new = words.size * (inside & ~hidden)
    return inside & (words.within(new) <= left[words.item])
