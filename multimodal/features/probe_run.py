"""Probe a model on labelled shards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from multimodal.datamodules.commands.progress import ProgressBar
from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.features.probe_report import ProbeReport
from multimodal.features.reader import FeatureReader, split_features
from multimodal.training.layer_features import Layer
from multimodal.training.probing import ProbeOptions, probe_layers

LABEL = "label"


def probe_shards(
    reader: FeatureReader, data: ShardDataModule, train_split: str, test_split: str, options: ProbeOptions, console: Console
) -> ProbeReport:
    """Read features of two splits and probe them.

    Args:
        reader: of features.
        data: reads the shards.
        train_split: where the labelled items come from.
        test_split: what is scored.
        options: what is tried.
        console: where progress is drawn, if it is a terminal.

    Raises:
        ValueError: a split has no labelled sample of the modality.
    """
    samples = sum(source.num_samples(split) for source in data.sources for split in (train_split, test_split))
    with ProgressBar("reading features", samples, console) as progress:
        train, y, _, left_out = labelled_features(reader, data, train_split, progress.advance)
        test, y_test, keys, test_left_out = labelled_features(reader, data, test_split, progress.advance)
    with ProgressBar("probing layers", len(train), console) as progress:
        results = probe_layers(train, y, test, y_test, options, lambda: progress.advance(1))
    return ProbeReport(
        model=reader.settings.source,
        fingerprint=reader.fingerprint(),
        modality=reader.modality,
        vector=reader.settings.vector,
        shards=", ".join(data.shards),
        train_items=len(y),
        left_out=left_out + test_left_out,
        test_keys=hashlib.sha256("\n".join(keys).encode()).hexdigest(),
        results=results,
    )


def labelled_features(
    reader: FeatureReader, data: ShardDataModule, split: str, listener: Callable[[int], object] | None = None
) -> tuple[dict[Layer, Tensor], Tensor, list[str], int]:
    """Return layer -> features in memory, the labels, the keys, and how many samples of the split have no label, no item, or are bad.

    Raises:
        ValueError: none has both an item and a label.
    """
    features: dict[Layer, list[Tensor]] = {layer: [] for layer in reader.layers}
    labels: list[int] = []
    keys: list[str] = []
    for batch, numbers, found in split_features(reader, iter(data.evaluation_dataloader(split)), listener):
        own: Any = batch.labels.get(LABEL)
        usable = [] if own is None else [(place, number) for place, number in enumerate(numbers) if own[number] >= 0]
        if usable:
            for layer, rows in found.items():
                features[layer].append(torch.stack([rows[place] for place, _ in usable]))
            labels += [int(own[number]) for _, number in usable]
            keys += [batch.keys[number] for _, number in usable]
    if not labels:
        raise ValueError(f"no sample of split {split!r} has both the modality {reader.modality!r} and a label.")
    total = sum(source.num_samples(split) for source in data.sources)
    return {layer: torch.cat(parts) for layer, parts in features.items()}, torch.tensor(labels), keys, total - len(labels)
