"""Where to predict, and what is shown there."""

from multimodal.masking.adversarial import AdversarialMasking
from multimodal.masking.alteration import Alteration
from multimodal.masking.blockwise import BlockwiseMasking
from multimodal.masking.book import MaskBook
from multimodal.masking.choice import ChoiceMasking
from multimodal.masking.chosen import ChosenGroupMasking, IdRangeMasking
from multimodal.masking.corruption import Drop, HidePlaces, MaskReplaceKeep
from multimodal.masking.field import FieldMasking
from multimodal.masking.frame import FrameMasking
from multimodal.masking.geometric_span import GeometricSpanMasking
from multimodal.masking.groups import GroupMasking
from multimodal.masking.hiding import Hiding
from multimodal.masking.inverse_block import InverseBlockMasking
from multimodal.masking.mixed import MixedMasking
from multimodal.masking.random import RandomMasking
from multimodal.masking.span import SpanMasking
from multimodal.masking.time_frequency import TimeFrequencyMasking
from multimodal.masking.tube import TubeMasking
from multimodal.masking.whole_word import WholeWordMasking

__all__ = [
    "AdversarialMasking",
    "Alteration",
    "BlockwiseMasking",
    "ChoiceMasking",
    "ChosenGroupMasking",
    "Drop",
    "FieldMasking",
    "FrameMasking",
    "GeometricSpanMasking",
    "GroupMasking",
    "HidePlaces",
    "Hiding",
    "IdRangeMasking",
    "InverseBlockMasking",
    "MaskBook",
    "MaskReplaceKeep",
    "MixedMasking",
    "RandomMasking",
    "SpanMasking",
    "TimeFrequencyMasking",
    "TubeMasking",
    "WholeWordMasking",
]
