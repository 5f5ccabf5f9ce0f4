"""Hide whole words.

Letters in shapes: n tokens, w words of all items end to end.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.masking.marks import budget
from multimodal.masking.noise import uniform
from multimodal.masking.words import Words, words_of
from multimodal.protocols import Masking, Tokens


class WholeWordMasking(Masking):
    """Hide all tokens of words that are drawn, up to a share of the tokens (BERT's whole word masking, ``create_pretraining_data.py``).

    Words are drawn one after the other; one that would go over ``round(mask_ratio * length)`` tokens, at least one, is left out, and
    the next is tried. So a few tokens fewer than that may be hidden, and none of an item whose words are all longer. Marks
    (``Tokens.marks``) are not hidden, and do not count: here the code departs from BERT's, which counts them in the length.

    Args:
        mask_ratio: share of the tokens to hide, in (0, 1).

    Raises:
        ValueError: ``mask_ratio`` is outside its range; when called, nothing says where words begin.
    """

    def __init__(self, mask_ratio: float = 0.15) -> None:
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio must be in (0, 1), got {mask_ratio}.")
        self.mask_ratio = mask_ratio

    def __call__(self, tokens: Tokens, seed: Int[Tensor, " items"]) -> Bool[Tensor, " n"]:
        """Return True where a token is hidden."""
        if tokens.begins is None:
            raise ValueError("WholeWordMasking needs to know where words begin, which this tokenizer does not tell: take RandomMasking.")
        words = words_of(tokens)
        order = (uniform(seed[words.item], words.first).double() + words.item).argsort(stable=True)
        hidden = torch.empty_like(words.item, dtype=torch.bool)
        hidden[order] = _taken(words._replace(size=words.size[order]), budget(tokens, self.mask_ratio))
        return words.tokens(hidden, tokens.marks)


def _taken(words: Words, left: Int[Tensor, " items"]) -> Bool[Tensor, " w"]:
    """Return which words are taken, in their order, while ``left`` tokens allow it; longer ones are passed over.

    What is left only shrinks, so words longer than it can be dropped at once. Of the others at least the first of each item fits: a few
    rounds for all items together are enough.
    """
    taken, open_ = torch.zeros_like(words.size, dtype=torch.bool), words.size > 0
    while True:
        open_ = open_ & (words.size <= left[words.item])
        if not open_.any():
            return taken
        fits = open_ & (words.within(words.size * open_) <= left[words.item])
        taken, open_ = taken | fits, open_ & ~fits
        left = left.index_add(0, words.item, -(words.size * fits))
