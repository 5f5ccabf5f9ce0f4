"""Hide a share of the tokens, uniformly."""

from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.masking.marks import budget, last_at_marks
from multimodal.masking.noise import uniform
from multimodal.protocols import Masking, Tokens


class RandomMasking(Masking):
    """Hide a fixed share of the tokens of each item, uniformly (BERT, https://arxiv.org/abs/1810.04805).

    Every item hides ``round(mask_ratio * length)`` tokens, at least one. Marks (``Tokens.marks``) are not hidden, and do not count.

    Args:
        mask_ratio: share of the tokens to hide, in (0, 1).
    """

    def __init__(self, mask_ratio: float = 0.15) -> None:
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio must be in (0, 1), got {mask_ratio}.")
        self.mask_ratio = mask_ratio

    def __call__(self, tokens: Tokens, seed: Int[Tensor, " items"]) -> Bool[Tensor, " n"]:
        """Return True where a token is hidden."""
        item, position = tokens.item, tokens.position
        count = budget(tokens, self.mask_ratio)
        noise = last_at_marks(tokens, uniform(seed[item], position))
        order = (noise + item).argsort(stable=True)  # by item, then by noise; float64 keeps both parts
        hidden = position < count[item]  # the items lie end to end, so `position` is also the rank in the sorted order
        masked = hidden.new_empty(len(hidden))
        masked[order] = hidden
        return masked
