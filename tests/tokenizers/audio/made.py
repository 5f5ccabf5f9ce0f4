"""Sounds and spectrograms of noise; what the tests of steps on the device share. Not a test by itself."""

import torch

from multimodal.batch import Item, Items, Sample, collate
from multimodal.tokenizers.audio import Spectrograms


def sounds(*lengths: int, first: int = 0) -> Items:
    samples = [torch.randn(length, generator=torch.Generator().manual_seed(length)) for length in lengths]
    return collate([Sample(str(i), {"sound": Item(x, ragged=True)}, seed=first + i) for i, x in enumerate(samples)]).items["sound"]


def pictures(*lengths: int) -> Items:
    return Spectrograms()(sounds(*lengths), train=True)


def split(items: Items) -> list[torch.Tensor]:
    return list(items.values) if items.lengths is None else list(items.values.split(items.lengths.tolist()))


def alone(items: Items, number: int) -> Items:
    return Items(split(items)[number], items.sample[:1], items.seed[number : number + 1], items.lengths[number : number + 1])
