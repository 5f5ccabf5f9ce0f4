"""Pieces of random notes and models that predict what is hidden of them; what the tests of objectives share. Not a test by itself."""

from functools import partial

import torch

from multimodal.batch import Batch, Item, Sample, collate
from multimodal.masking import FieldMasking, MaskReplaceKeep, RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Encoder
from multimodal.tokenizers.midi import CompoundEmbed, MidiTransform
from multimodal.training import MaskedPretraining
from tests.objectives.pictures import shaken

SIZES = (4, 18, 88, 66)


def music(**settings) -> partial:
    parts = {
        "embed": partial(CompoundEmbed, field_dim=8),
        "masking": FieldMasking(RandomMasking(0.5), ["position", "pitch", "duration"], draw="some"),
        "corruption": MaskReplaceKeep(0.8, 0.1),
    }
    return partial(Modality, transform=MidiTransform(), **{**parts, **settings})


def model(objectives: list | None = None, **settings) -> MaskedPretraining:
    torch.manual_seed(0)
    made = MaskedPretraining(Encoder(dim=16, depth=2, num_heads=2, class_token=True), {"music": music(**settings)}, objectives)
    return shaken(made)


def batch(*lengths: int) -> Batch:
    generator = torch.Generator().manual_seed(3)
    ids = [torch.stack([torch.randint(size - 2, (length,), generator=generator) for size in SIZES], 1) for length in lengths]
    return collate([Sample(str(i), {"music": Item(x, ragged=True)}, seed=70 + i) for i, x in enumerate(ids)])
