"""Several views of an item in evaluation, such as clips from all over a film, or windows of a piece: a batch for each.

Letters in shapes: i items, v views, s samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from multimodal.batch import Batch, Items
from multimodal.protocols import Transform
from multimodal.windowed import SEED_STEP, WINDOW, is_windowed


@dataclass(frozen=True)
class Said:
    """What is said of the samples of a batch, view by view.

    Args:
        views: name -> ``(v, s, ...)``; what stands where ``present`` is False means nothing.
        present: ``(v, s)`` bool, True where a sample has a view, and tokens in it.
    """

    views: Mapping[str, Tensor]
    present: Tensor

    @property
    def samples(self) -> Tensor:
        """``(s,)`` bool, True for samples of which something is said."""
        return self.present.any(0)

    def mean(self) -> dict[str, Tensor]:
        """Return name -> ``(s, ...)``, the means over the views that samples have; zeros for samples without."""
        if len(self.present) == 1:
            return {name: x[0] for name, x in self.views.items()}
        found = {}
        for name, x in self.views.items():
            there = self.present.view(*self.present.shape, *[1] * (x.ndim - 2))
            found[name] = x.masked_fill(~there, 0).sum(0) / there.sum(0).clamp(min=1).to(x.dtype)
        return found


def num_views(transforms: Mapping[str, Transform]) -> int:
    """Return how many views of a sample there are in evaluation, at most.

    Args:
        transforms: modality name -> transform.

    Raises:
        ValueError: modalities have several views, and not as many.
    """
    counts = {name: transform.num_views for name, transform in transforms.items() if transform.num_views > 1}
    if len(set(counts.values())) > 1:
        raise ValueError(f"modalities have {counts} views of an item: all that have several must have as many.")
    return max(counts.values(), default=1)


def views_of(batch: Batch, transforms: Mapping[str, Transform]) -> Iterator[Batch]:
    """Yield a batch for each view; items of a single view are in all of them.

    A ragged item may have fewer views than others: its sample is not in the later batches, of which the last may have no items.

    Args:
        batch: as it is evaluated: values of modalities with several views are ``(i, v, ...)``, or windows end to end.
        transforms: modality name -> transform.
    """
    views = {name: transforms[name].num_views for name in batch.items}
    for number in range(num_views(transforms)):
        items = {name: _view(own, views[name], number) for name, own in batch.items.items()}
        missing = [batch.items[name].sample[~torch.isin(batch.items[name].sample, own.sample)] for name, own in items.items()]
        gone = torch.cat(missing) if missing else None
        if gone is not None and len(gone):
            items = {name: _without(own, gone) for name, own in items.items()}
        yield replace(batch, items={name: own for name, own in items.items() if len(own)})


def _view(items: Items, count: int, number: int) -> Items:
    """Return one view of those items that have it."""
    if count == 1:
        return items
    seed = items.seed + torch.full_like(items.seed, number) * SEED_STEP
    if not is_windowed(items):
        return replace(items, values=items.values[:, number], seed=seed)
    assert items.labels is not None
    return _kept(replace(items, seed=seed), items.labels[:, WINDOW] == number)


def _without(items: Items, gone: Tensor) -> Items:
    """Return the items that are not of some samples."""
    kept = ~torch.isin(items.sample, gone)
    if items.lengths is not None:
        return _kept(items, torch.repeat_interleave(kept, items.lengths, output_size=len(items.values)))
    return replace(items, ids=None).map_tensors(lambda x: x[kept])  # there are no ids for each item


def _kept(items: Items, entries: Tensor) -> Items:
    """Return ragged items with some of their entries, and without items that have none. ``entries``: ``(n,)`` bool."""
    assert items.lengths is not None
    owner = torch.repeat_interleave(items.lengths, output_size=len(entries))
    lengths = torch.bincount(owner[entries], minlength=len(items))
    there = lengths > 0
    labels = None if items.labels is None else items.labels[entries]
    return Items(items.values[entries], items.sample[there], items.seed[there], lengths[there], labels=labels)  # ids are of no use here
