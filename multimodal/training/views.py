"""Several views of an item in evaluation, such as clips from all over a film: a batch for each.

Letters in shapes: i items, v views.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from multimodal.batch import Batch, Items
from multimodal.protocols import Transform


def num_views(transforms: Mapping[str, Transform]) -> int:
    """Return how many views of a sample there are in evaluation.

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

    Args:
        batch: as it is evaluated: values of modalities with several views are ``(i, v, ...)``.
        transforms: modality name -> transform.
    """
    for number in range(num_views(transforms)):
        items = {name: _view(own, transforms[name].num_views, number) for name, own in batch.items.items()}
        yield replace(batch, items=items)


def _view(items: Items, count: int, number: int) -> Items:
    return items if count == 1 else replace(items, values=items.values[:, number])
