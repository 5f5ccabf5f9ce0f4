"""Where to predict, and what is shown there."""

from multimodal.masking.blockwise import BlockwiseMasking
from multimodal.masking.corruption import MaskReplaceKeep
from multimodal.masking.random import RandomMasking
from multimodal.masking.tube import TubeMasking

__all__ = ["BlockwiseMasking", "MaskReplaceKeep", "RandomMasking", "TubeMasking"]
