"""From the bytes of a sample to a ``Sample``: decode, transform, labels, seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch

from multimodal.batch import Item, Sample
from multimodal.datamodules.contents import METADATA
from multimodal.datamodules.keys import stable_hash
from multimodal.datamodules.reader import RawSample
from multimodal.errors import SampleError
from multimodal.protocols import Transform

LABEL = "label"


class SamplePreparation:
    """Turn raw samples into samples. The result depends on the arguments only, not on the process or on what was prepared before.

    Args:
        transforms: modality name -> transform.
        classes: label names; the place of a name is its number.
        seed: of the run.
        train: whether transforms augment.
    """

    def __init__(self, transforms: Mapping[str, Transform], classes: Sequence[str], seed: int, train: bool) -> None:
        self.transforms = dict(transforms)
        self.numbers = {name: number for number, name in enumerate(classes)}
        self.seed, self.train = seed, train
        self._wanted = frozenset({METADATA}.union(*(transform.extensions for transform in self.transforms.values())))

    def wanted(self, source: int, turn: int, key: str) -> frozenset[str]:
        """Return the fields that the preparation of a sample reads."""
        return self._wanted

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
            field = next((extension for extension in transform.extensions if extension in raw.fields), None)
            if field is not None:
                items[name] = self._item(raw, field, transform, seed)
        if not items:
            wanted = ", ".join(extension for transform in self.transforms.values() for extension in transform.extensions)
            raise SampleError(raw.shard, raw.key, "*", f"none of the fields wanted ({wanted}); the sample has {', '.join(raw.names)}.")
        return Sample(raw.key, items, self._labels(raw), seed)

    def _item(self, raw: RawSample, field: str, transform: Transform, seed: int) -> Item:
        generator = torch.Generator().manual_seed(seed)
        try:
            return transform(transform.decode(raw.fields[field]), generator, self.train)
        except ValueError as error:
            raise SampleError(raw.shard, raw.key, field, str(error)) from error
        except Exception as error:
            error.add_note(f"while preparing shard {raw.shard}, key {raw.key!r}, field {field!r}")
            raise

    def _labels(self, raw: RawSample) -> dict[str, int]:
        try:
            metadata = json.loads(raw.fields.get(METADATA, b"{}"))
        except ValueError as error:
            raise SampleError(raw.shard, raw.key, METADATA, f"not JSON: {error}.") from None
        if not isinstance(metadata, dict):
            raise SampleError(raw.shard, raw.key, METADATA, "not a JSON object.")
        label = metadata.get(LABEL)
        if label is None:
            return {}
        if not isinstance(label, str) or label not in self.numbers:
            raise SampleError(raw.shard, raw.key, METADATA, f"unknown label {label!r}; the index lists {len(self.numbers)} classes.")
        return {LABEL: self.numbers[label]}


def sample_seed(seed: int, turn: int, source: int, key: str) -> int:
    """Return the 63-bit seed of a sample in a turn of its source."""
    return stable_hash("sample", seed, turn, source, key) >> 1
