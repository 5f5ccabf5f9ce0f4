"""What travels from the data to the model: items, samples and batches.

An *item* is one image, one piece, one clip. A *sample* is what belongs together: the items of one key. A *batch* holds, for each
modality that is present, its items and the number of the sample that each belongs to. A missing modality is an absent item, never a
tensor of zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

SEED_STEP = 0x1E3779B97F4A7C15
"""Between the seeds of the modalities of one sample; odd, so that the seeds of all samples keep apart."""
VIEW_STEP = 0x27D4EB2F165667C5
"""Between the seeds of the views of one item; odd, too."""


@dataclass(frozen=True)
class Item:
    """One image, piece or clip, as a ``Transform`` returns it.

    Args:
        values: what the encoder sees.
        tokenizer_values: what the tokenizer sees where that differs (another size of the same crop); None: the same.
        ragged: whether the first axis of ``values`` varies from item to item (notes, samples of a sound).
        ids: ``(n,)`` or ``(n, k)`` int64, the tokenizer's ids of this very view, where they were made beforehand; None: the tokenizer runs.
        labels: int64 or int16, a class for each place of the item (each pixel), -1 where there is none; None: places have no labels.
    """

    values: Tensor
    tokenizer_values: Tensor | None = None
    ragged: bool = False
    ids: Tensor | None = None
    labels: Tensor | None = None


@dataclass(frozen=True)
class Sample:
    """What belongs together under one key.

    Args:
        key: the name in the shard.
        items: modality name -> item; modalities that the sample lacks are absent.
        labels: label name -> class number; where a sample may have several, ``(classes,)`` int64, 1 at those that it has, else 0.
        seed: 63-bit number from (run seed, epoch, sample): all randomness about this sample in this epoch comes from it.
    """

    key: str
    items: Mapping[str, Item]
    labels: Mapping[str, int | Tensor] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Items:
    """All items of one modality in a batch.

    Args:
        values: ``(items, ...)``; ragged items lie end to end, ``(sum of lengths, ...)``.
        sample: ``(items,)`` int64, the number of the sample in the batch that each item belongs to.
        seed: ``(items,)`` int64, one seed per item; maskings and corruptions draw from it.
        lengths: ``(items,)`` int64 for ragged items, else None.
        tokenizer_values: the tokenizer's view where it differs from the encoder's, laid out like ``values``.
        ids: ``(n,)`` or ``(n, k)`` int64, the ids of all items end to end, where every item brought its own.
        labels: of every place of the items, ``(items, ...)``; end to end where ``values`` are.
    """

    values: Tensor
    sample: Tensor
    seed: Tensor
    lengths: Tensor | None = None
    tokenizer_values: Tensor | None = None
    ids: Tensor | None = None
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def for_tokenizer(self) -> tuple[Tensor, ...]:
        """What tokenizers and teachers are called with: their view of the items, and for ragged items the lengths."""
        values = self.values if self.tokenizer_values is None else self.tokenizer_values
        return (values,) if self.lengths is None else (values, self.lengths)

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> Items:
        """Return the items with ``function`` applied to each tensor."""
        changed = {name: function(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **changed)

    def repeated(self, views: int) -> Items:
        """Return all items ``views`` times, one time after the other; sample n becomes the samples from n ``views`` on."""
        view = torch.arange(views, device=self.sample.device)[:, None]
        sample, seed = (self.sample * views + view).flatten(), (self.seed + view * VIEW_STEP).flatten()
        return replace(self.map_tensors(lambda x: x.repeat(views, *[1] * (x.ndim - 1))), sample=sample, seed=seed)


@dataclass(frozen=True)
class Batch:
    """Items by modality, with the keys and labels of the samples.

    Args:
        items: modality name -> items; a modality that no sample has is absent.
        keys: one per sample; none where all samples of the batch were bad: ranks must have the same number of batches.
        labels: label name -> ``(samples,)`` int64, or where a sample may have several ``(samples, classes)``, 0 and 1; -1 where a sample
            has no such label.
        views: how many samples in a row are the same one, to be prepared in different ways.
    """

    items: Mapping[str, Items]
    keys: tuple[str, ...]
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    views: int = 1

    @property
    def num_samples(self) -> int:
        """Number of samples, those without items of some modality included."""
        return len(self.keys)

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with ``function`` applied to each tensor."""
        return Batch(
            items={name: items.map_tensors(function) for name, items in self.items.items()},
            keys=self.keys,
            labels={name: function(label) for name, label in self.labels.items()},
            views=self.views,
        )

    def repeated(self, views: int) -> Batch:
        """Return a batch in which each sample stands ``views`` times, side by side, each time with other seeds."""
        return Batch(
            items={name: items.repeated(views) for name, items in self.items.items()},
            keys=tuple(key for key in self.keys for _ in range(views)),
            labels={name: label.repeat_interleave(views, 0) for name, label in self.labels.items()},
            views=self.views * views,
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch on ``device``."""
        return self.map_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory (called by ``DataLoader(pin_memory=True)``)."""
        return self.map_tensors(Tensor.pin_memory)


def collate(samples: Sequence[Sample]) -> Batch:
    """Join samples into a batch; samples may have different modalities. No samples make an empty batch.

    Raises:
        ValueError: items of one modality differ in shape (ragged ones: past the first axis) or in kind.
    """
    names = {name: None for sample in samples for name in sample.items}  # a dict keeps the order of appearance
    label_names = {name: None for sample in samples for name in sample.labels}
    return Batch(
        items={name: _collate_items(name, samples) for name in names},
        keys=tuple(sample.key for sample in samples),
        labels={name: _collate_labels([sample.labels.get(name) for sample in samples]) for name in label_names},
    )


def _collate_labels(labels: list[int | Tensor | None]) -> Tensor:
    """Return one row for each sample, -1 where there is no label; at least one has one."""
    missing = torch.full_like(torch.as_tensor(next(label for label in labels if label is not None)), -1)
    return torch.stack([missing if label is None else torch.as_tensor(label) for label in labels])


def _collate_items(name: str, samples: Sequence[Sample]) -> Items:
    present = [(number, sample) for number, sample in enumerate(samples) if name in sample.items]
    items = [sample.items[name] for _, sample in present]
    ragged = items[0].ragged
    if any(item.ragged != ragged for item in items):
        raise ValueError(f"some items of modality {name!r} are marked ragged and some are not: its transform must mark all or none.")
    views = _all_or_none(name, "a tokenizer view", [item.tokenizer_values for item in items])
    ids = _all_or_none(name, "stored ids", [item.ids for item in items])
    labels = _all_or_none(name, "labels of their places", [item.labels for item in items])
    return Items(
        values=_join(name, [item.values for item in items], ragged),
        sample=torch.tensor([number for number, _ in present]),
        seed=torch.tensor([_item_seed(name, sample) for _, sample in present]),
        lengths=torch.tensor([len(item.values) for item in items]) if ragged else None,
        tokenizer_values=_join(name, views, ragged) if views else None,
        ids=_join(name, ids, ragged=True) if ids else None,
        labels=_join(name, labels, ragged) if labels else None,
    )


def _all_or_none(name: str, what: str, values: list[Tensor | None]) -> list[Tensor]:
    there = [value for value in values if value is not None]
    if len(there) not in (0, len(values)):
        raise ValueError(f"{len(there)} of {len(values)} items of modality {name!r} have {what}; all or none must.")
    return there


def _item_seed(name: str, sample: Sample) -> int:
    """Return the seed of an item: the modalities of one sample must not all hide the same places."""
    return (sample.seed + list(sample.items).index(name) * SEED_STEP) % 2**63


def _join(name: str, values: list[Tensor], ragged: bool) -> Tensor:
    shapes = {tuple(value.shape[1:] if ragged else value.shape) for value in values}
    if len(shapes) > 1:
        hint = "only the first axis may vary" if ragged else "let its transform give one size, or mark them ragged"
        raise ValueError(f"items of modality {name!r} differ in shape {sorted(shapes)}: {hint}.")
    return torch.cat(values) if ragged else torch.stack(values)
