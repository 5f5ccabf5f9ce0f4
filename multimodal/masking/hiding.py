"""Tokens hidden while something else than they is learned.

Letters in shapes: n tokens of all items, items.
"""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

from multimodal.masking.corruption import MaskReplaceKeep
from multimodal.masking.random import RandomMasking
from multimodal.protocols import Corruption, Embed, Masking, Shown, Tokens


class Hiding:
    """Hide some tokens of each item in fine-tuning, so that classes are learned from the rest.

    The defaults are the mask fine-tuning of Adversarial-MidiBERT (https://github.com/RS2002/Adversarial-MidiBERT, ``finetune.py``): 15% of
    the tokens are drawn, 80% of them show the mask, the others are shown. With ``Drop`` and another masking it is the regularisation of
    AudioMAE and EAT, whose encoders see a part of the patches. Nothing is hidden in predictions.

    Args:
        masking: which tokens; None: ``RandomMasking(0.15)``.
        corruption: what is shown there; None: ``MaskReplaceKeep(mask=0.8, replace=0.0)``.
        in_evaluation: whether tokens are hidden in validation and test too, the same in every epoch.

    Raises:
        ValueError: a masking that mixes items or learns in pretraining, or a corruption that hides places alone.
    """

    def __init__(self, masking: Masking | None = None, corruption: Corruption | None = None, in_evaluation: bool = False) -> None:
        self.masking = masking or RandomMasking(0.15)
        self.corruption = corruption or MaskReplaceKeep(mask=0.8, replace=0.0)
        self.in_evaluation = in_evaluation
        if self.masking.num_mixed > 1:
            raise ValueError(f"hiding: a {type(self.masking).__name__} mixes items: take another masking.")
        if self.masking.learns:
            raise ValueError(f"hiding: {type(self.masking).__name__} learns from what is predicted, and nothing is: take RandomMasking.")
        if self.corruption.hides_places:
            raise ValueError(
                f"hiding: a {type(self.corruption).__name__} hides the places of tokens, not the tokens: take another corruption."
            )

    def __call__(self, embed: Embed, tokens: Tokens, seed: Int[Tensor, " items"]) -> Shown:
        """Return what the encoder sees of tokens; ``seed``: of each item.

        Raises:
            ValueError: the masking hides single fields, which the corruption cannot.
        """
        masked = self.masking(tokens, seed)
        if masked.ndim > 1 and not self.corruption.hides_fields:
            raise ValueError(
                f"hiding: a {type(self.masking).__name__} hides single fields, a {type(self.corruption).__name__} whole tokens: take "
                "MaskReplaceKeep."
            )
        return self.corruption(embed, tokens, masked, seed)
