"""From the bytes of a sample to a ``Sample``: decode, transform, labels, seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from multimodal.batch import Item, Sample
from multimodal.datamodules.shards.contents import LABEL, METADATA, TAGS, metadata_of, tags_of
from multimodal.datamodules.shards.keys import stable_hash
from multimodal.datamodules.shards.reader import RawSample
from multimodal.datamodules.tokenizing.stored_ids import StoredView, StoredViews
from multimodal.errors import SampleError
from multimodal.protocols import LabelledTransform, Transform


class SamplePreparation:
    """Turn raw samples into samples. The result depends on the arguments only, not on the process or on what was prepared before.

    Args:
        transforms: modality name -> transform.
        classes: label names; the place of a name is its number.
        seed: of the run.
        train: whether transforms augment.
        stored: ids that were made beforehand, and with them the views to make; None: there are none.
        tags: names of labels of which a sample may have several; the place of a name is its column. Without names, what samples say of
            several labels is not read.
    """

    def __init__(
        self,
        transforms: Mapping[str, Transform],
        classes: Sequence[str],
        seed: int,
        train: bool,
        stored: StoredViews | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        self.transforms = dict(transforms)
        self.numbers = {name: number for number, name in enumerate(classes)}
        self.columns = {name: column for column, name in enumerate(tags)}
        self.seed, self.train, self.stored = seed, train, stored
        self._files = frozenset({METADATA}.union(*(_fields_of(transform) for transform in self.transforms.values())))

    def wanted(self, source: int, turn: int, key: str) -> frozenset[str]:
        """Return the fields that the preparation of a sample reads."""
        if self.stored is None:
            return self._files
        fields = {METADATA}
        for name, transform in self.transforms.items():
            view = self._view(name, source, turn, key)
            fields.update(() if view is None else (view.field,))
            fields.update(() if view is not None and view.values_are_ids else _fields_of(transform))
        return frozenset(fields)

    def _view(self, name: str, source: int, turn: int, key: str) -> StoredView | None:
        return None if self.stored is None else self.stored.view(name, source, turn, key)

    def __call__(self, raw: RawSample, source: int, turn: int) -> Sample:
        """Return the sample.

        Args:
            raw: the bytes.
            source: number of the source.
            turn: how often the source was read through before; 0 for evaluation.

        Raises:
            SampleError: no field for any transform, a field that cannot be decoded, or an unknown label.
        """
        seed = sample_seed(self.seed, turn, source, raw.key)
        items = {}
        for name, transform in self.transforms.items():
            item = self._item(raw, transform, seed, self._view(name, source, turn, raw.key))
            if item is not None:
                items[name] = item
        if not items:
            wanted = ", ".join(extension for transform in self.transforms.values() for extension in transform.extensions)
            raise SampleError(raw.shard, raw.key, "*", f"none of the fields wanted ({wanted}); the sample has {', '.join(raw.names)}.")
        return Sample(raw.key, items, self._labels(raw), seed)

    def _item(self, raw: RawSample, transform: Transform, seed: int, view: StoredView | None) -> Item | None:
        """Return the item; None where the sample lacks the modality."""
        field = next((extension for extension in transform.extensions if extension in raw.names), None)
        if view is not None and view.values_are_ids:
            there = field is not None or view.field in raw.names
            return Item(view.ids(raw), ragged=view.ragged) if there else None
        if field is None:
            return None
        if view is None:
            return self._made(raw, field, transform, torch.Generator().manual_seed(seed))
        ids = view.ids(raw)
        return replace(self._made(raw, field, transform, view.generator()), ids=ids)

    def _made(self, raw: RawSample, field: str, transform: Transform, generator: torch.Generator) -> Item:
        with _about(raw, field):
            decoded = transform.decode(raw.fields[field])
            if not isinstance(transform, LabelledTransform):
                return transform(decoded, generator, self.train)
        second = next((extension for extension in transform.label_extensions if extension in raw.names), None)
        with _about(raw, second or field):
            labels = None if second is None else transform.decode_labels(raw.fields[second])
            return transform.labelled(decoded, labels, generator, self.train)

    def _labels(self, raw: RawSample) -> dict[str, int | Tensor]:
        if METADATA not in raw.fields:
            return {}
        with _about(raw, METADATA):
            metadata = metadata_of(raw.fields[METADATA])
            return self._class(metadata) | self._tags(metadata)

    def _class(self, metadata: Mapping[str, Any]) -> dict[str, int | Tensor]:
        label = metadata.get(LABEL)
        if label is None:
            return {}
        if not isinstance(label, str) or label not in self.numbers:
            raise ValueError(f"unknown label {label!r}; the index lists {len(self.numbers)} classes.")
        return {LABEL: self.numbers[label]}

    def _tags(self, metadata: Mapping[str, Any]) -> dict[str, int | Tensor]:
        found = tags_of(metadata) if self.columns else None
        if found is None:
            return {}
        unknown = [name for name in found if name not in self.columns]
        if unknown:
            raise ValueError(f"unknown label {unknown[0]!r} among its labels; the index lists {len(self.columns)}.")
        present = torch.zeros(len(self.columns), dtype=torch.int64)
        present[[self.columns[name] for name in found]] = 1
        return {TAGS: present}


def _fields_of(transform: Transform) -> tuple[str, ...]:
    labels = transform.label_extensions if isinstance(transform, LabelledTransform) else ()
    return (*transform.extensions, *labels)


@contextmanager
def _about(raw: RawSample, field: str) -> Iterator[None]:
    """Say in errors which field of which sample they are about."""
    try:
        yield
    except ValueError as error:
        raise SampleError(raw.shard, raw.key, field, str(error)) from error
    except Exception as error:
        error.add_note(f"while preparing shard {raw.shard}, key {raw.key!r}, field {field!r}")
        raise


def sample_seed(seed: int, turn: int, source: int, key: str) -> int:
    """Return the 63-bit seed of a sample in a turn of its source."""
    return stable_hash("sample", seed, turn, source, key) >> 1
