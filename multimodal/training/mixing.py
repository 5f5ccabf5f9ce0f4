"""Mixed samples: two samples become one, and so do their labels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from multimodal.batch import Batch, Items

ROWS_AND_COLUMNS = 2


@dataclass(frozen=True)
class Mixed:
    """How the samples of a batch were mixed.

    Args:
        partner: ``(samples,)`` int64, the sample that each was mixed with; itself where it was left alone.
        share: ``(samples,)`` float32, what is left of the sample itself: the weight of its own labels. The partner's have the rest.
    """

    partner: Tensor
    share: Tensor


class Draw(NamedTuple):
    """What is drawn for a batch.

    Args:
        share: of a sample itself, in [0, 1].
        centre: of the box that CutMix fills with the partner, as shares of height and width in [0, 1); None: Mixup, the mean of both.
    """

    share: float
    centre: tuple[float, float] | None = None


class Mixing:
    """Mixup (https://arxiv.org/abs/1710.09412) or CutMix (https://arxiv.org/abs/1905.04899) of whole batches, where the batch lies.

    As in timm the first sample is mixed with the last, the second with the last but one, and all in one proportion. Samples are mixed with
    samples of the same modalities and with labels for the same heads; those alone of their kind stay as they are, and so do those with
    items that cannot be mixed: ids, and with CutMix sequences. A batch of pictures is thus mixed as timm does it. Draws come from torch's
    generator on the CPU, which the command seeds for each step: a resumed run mixes alike.

    Sequences of numbers, such as waveforms and spectrograms, keep their own length by Mixup: the partner's is cut there, or filled up with
    zeros, as AST and AudioMAE fill up waveforms. The share of the labels is that of the values all the same. What is mixed is what the
    modality's preparation made: spectrograms, where it makes them.

    Args:
        mixup_alpha: both parameters of the beta distribution that Mixup draws a sample's share from; 0: no Mixup. BEiT, MAE: 0.8.
        cutmix_alpha: the same of CutMix, where it is the share outside of the box; 0: no CutMix, as sequences need. BEiT, MAE: 1.0.
        probability: of a batch to be mixed, in (0, 1].
        switch_probability: of CutMix in a batch that is mixed, where both are on, in [0, 1].

    Raises:
        ValueError: a setting outside its range, or both alphas 0.
    """

    def __init__(
        self, mixup_alpha: float = 0.8, cutmix_alpha: float = 1.0, probability: float = 1.0, switch_probability: float = 0.5
    ) -> None:
        if min(mixup_alpha, cutmix_alpha) < 0 or max(mixup_alpha, cutmix_alpha) == 0:
            raise ValueError(f"mixup_alpha and cutmix_alpha must be at least 0, and one above it; got {mixup_alpha} and {cutmix_alpha}.")
        if not 0 < probability <= 1:
            raise ValueError(f"probability must be in (0, 1], got {probability}.")
        if not 0 <= switch_probability <= 1:
            raise ValueError(f"switch_probability must be in [0, 1], got {switch_probability}.")
        self.mixup_alpha, self.cutmix_alpha = mixup_alpha, cutmix_alpha
        self.probability, self.switch_probability = probability, switch_probability

    def __call__(self, batch: Batch) -> tuple[Batch, Mixed | None]:
        """Return the batch with mixed values, and how it was mixed; None where it was not."""
        draw = self.draw(np.random.default_rng(int(torch.randint(2**62, (), device="cpu"))))
        return (batch, None) if draw is None or not batch.items else mix(batch, draw)

    def draw(self, generator: np.random.Generator) -> Draw | None:
        """Draw for a batch; None: it is not to be mixed."""
        if generator.random() >= self.probability:
            return None
        cut = self.mixup_alpha == 0 or (self.cutmix_alpha > 0 and generator.random() < self.switch_probability)
        alpha = self.cutmix_alpha if cut else self.mixup_alpha
        share = float(generator.beta(alpha, alpha))
        return Draw(share, (generator.random(), generator.random()) if cut else None)


def can_be_mixed(values: Tensor, ragged: bool = False, cut: bool = False) -> bool:
    """Return whether the values of an item can be mixed.

    Bytes and real numbers with rows and columns can, and by Mixup real numbers of any shape; ids cannot.

    Args:
        values: of the item.
        ragged: whether its first axis varies from item to item.
        cut: whether by CutMix, instead of Mixup.
    """
    if ragged or values.ndim < ROWS_AND_COLUMNS:
        return values.is_floating_point() and not cut
    return values.dtype == torch.uint8 or values.is_floating_point()


def mix(batch: Batch, draw: Draw) -> tuple[Batch, Mixed]:
    """Mix all samples of a batch with their partners.

    Args:
        batch: on any device.
        draw: for this batch.

    Returns:
        The batch, its labels as they were, without views and ids of tokenizers, which would be those of before; and how it was mixed.
    """
    cut = draw.centre is not None
    partner = partners(batch, cut)
    shares, counts = partner.new_zeros(len(partner), dtype=torch.float32), torch.zeros_like(partner)
    mixed: dict[str, Items] = {}
    for name, items in batch.items.items():
        if not _mixes(items, cut):
            mixed[name] = items
            continue
        values, share = mix_values(items.values, _others(items, _items_of(items, partner)), draw)
        mixed[name] = replace(items, values=values, tokenizer_values=None, ids=None)
        shares = shares.index_add(0, items.sample, shares.new_full((len(items),), share))
        counts = counts.index_add(0, items.sample, torch.ones_like(items.sample))
    alone = (partner == torch.arange(len(partner), device=partner.device)) | (counts == 0)
    return replace(batch, items=mixed), Mixed(partner, torch.where(alone, 1.0, shares / counts.clamp(min=1)))


def mix_values(own: Tensor, other: Tensor, draw: Draw) -> tuple[Tensor, float]:
    """Mix values ``(items, ..., rows, columns)`` with others; bytes become float32 by Mixup.

    Returns:
        The mixed values, and the share of ``own`` in them: with CutMix that of the area outside of the box, which edges may have cut.
    """
    if draw.centre is None:
        own = own if own.is_floating_point() else own.float()
        return own * draw.share + other * (1 - draw.share), draw.share
    rows, columns = own.shape[-2:]
    (top, bottom), (left, right) = (_span(size, draw.share, at) for size, at in zip((rows, columns), draw.centre, strict=True))
    values = own.clone()
    values[..., top:bottom, left:right] = other[..., top:bottom, left:right]
    return values, 1 - (bottom - top) * (right - left) / (rows * columns)


def partners(batch: Batch, cut: bool = False) -> Tensor:
    """Return ``(samples,)`` int64, the sample that each is mixed with: among those of its kind, in the order of the batch, from the end.

    Args:
        batch: not an empty one.
        cut: whether they are mixed by CutMix.
    """
    device = next(iter(batch.items.values())).sample.device
    kind, mixes = (torch.full((batch.num_samples,), start, device=device) for start in (0, True))
    for bit, items in enumerate(batch.items.values()):
        kind = kind.index_add(0, items.sample, torch.full_like(items.sample, 1 << bit))
        mixes = mixes if _mixes(items, cut) else mixes.index_fill(0, items.sample, False)
    for bit, labels in enumerate(batch.labels.values(), start=len(batch.items)):
        kind = kind + ((labels.reshape(len(labels), -1)[:, 0] >= 0).long() << bit)
    order, number = kind.argsort(stable=True), torch.arange(batch.num_samples, device=device)
    ranked = kind[order]
    mirrored = torch.searchsorted(ranked, ranked) + torch.searchsorted(ranked, ranked, right=True) - 1 - number
    return torch.where(mixes, number.scatter(0, order, order[mirrored]), number)


def _mixes(items: Items, cut: bool) -> bool:
    ragged = items.lengths is not None
    return can_be_mixed(items.values if ragged else items.values[0], ragged, cut)


def _others(items: Items, other: Tensor) -> Tensor:
    """Return the values of the other item of each, ``(items,)``; of ragged items as long as the item itself, zeros after its end."""
    if items.lengths is None:
        return items.values[other]
    starts = items.lengths.cumsum(0) - items.lengths
    own = torch.repeat_interleave(items.lengths, output_size=len(items.values))
    place, there = torch.arange(len(own), device=own.device) - starts[own], other[own]
    beyond = place >= items.lengths[there]
    found = items.values[starts[there] + place.masked_fill(beyond, 0)]
    return found.masked_fill(beyond.view(-1, *[1] * (found.ndim - 1)), 0)


def _items_of(items: Items, partner: Tensor) -> Tensor:
    """Return the number of the item of each item's partner: ``(items,)`` int64."""
    number = torch.arange(len(items), device=partner.device)
    return torch.zeros_like(partner).scatter(0, items.sample, number)[partner[items.sample]]


def _span(size: int, share: float, at: float) -> tuple[int, int]:
    """Return where the box begins and ends along an axis."""
    length, centre = int(size * math.sqrt(1 - share)), int(size * at)
    return max(centre - length // 2, 0), min(centre + (length + 1) // 2, size)
