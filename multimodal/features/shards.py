"""Features as shards: for every shard one of the same name, keys and order, with the features beside the metadata."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from multimodal.batch import Item, Sample, collate
from multimodal.datamodules.jobs.folder_run import FolderRun, WriteResult, written_index
from multimodal.datamodules.jobs.run_jobs import Advance
from multimodal.datamodules.shards.contents import METADATA, Contents
from multimodal.datamodules.shards.index import FILE_NAME, ShardIndex, ShardInfo
from multimodal.datamodules.shards.reader import RawSample
from multimodal.datamodules.shards.shard_file import file_sha256
from multimodal.datamodules.streaming.bad_samples import OnError
from multimodal.datamodules.tokenizing.rewritten_shard import PlannedJob, ShardJob, one_thread, rewrite_shard
from multimodal.datamodules.tokenizing.tokenize import RunOptions
from multimodal.errors import SampleError
from multimodal.features.reader import FeatureReader, FeatureSettings, cached_reader
from multimodal.fingerprint import transform_fingerprint
from multimodal.protocols import Transform

FIELD = "features.npy"
LARGEST_HALF = 65504.0
Precision = Literal["float16", "float32"]


@dataclass(frozen=True)
class FeatureShardSettings:
    """What the new shards hold.

    Args:
        features: which; one layer.
        precision: of the numbers that are stored.
        keep: whether all fields of a sample stay beside the features, or its metadata alone.
        batch_size: items that the encoder gets at once, at least 1.
        on_error: whether a sample that cannot be decoded stops the run, or is written without features and listed.

    Raises:
        ValueError: a setting outside its range.
    """

    features: FeatureSettings
    precision: Precision = "float32"
    keep: bool = False
    batch_size: int = 64
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        if self.precision not in ("float16", "float32"):
            raise ValueError(f"precision must be float16 or float32, got {self.precision!r}.")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}.")


def write_feature_shards(
    source: ShardIndex,
    folder: Path | str,
    settings: FeatureShardSettings,
    splits: Sequence[str] = (),
    options: RunOptions | None = None,
    listener: Advance | None = None,
) -> WriteResult:
    """Write, for every shard of a source, a shard of the same name with ``<key>.features.npy`` in each sample, and the index.

    A run that was interrupted goes on with the shards that are not finished.

    Args:
        source: what is read.
        folder: made if it is not there; one that holds the result already stays as it is.
        settings: what the new shards hold.
        splits: which; none: all.
        options: who does it.
        listener: told of samples and bytes that are done.

    Raises:
        SampleError: a sample cannot be read, or cannot be decoded and ``on_error`` is "raise".
        ValueError: the settings do not fit model or source, the folder holds other shards, or another process writes there.
        OSError: the disk is full (the message names the shard), or a worker process died.
    """
    options, root = options or RunOptions(), Path(folder)
    reader = cached_reader(settings.features)
    check_fits(source, reader)
    if not source.url and source.root.resolve() == root.resolve():
        raise ValueError(f"{root} is the source: write the features to another folder.")
    if len(reader.layers) != 1:
        raise ValueError(f"features are written of one layer, got {reader.layers}.")
    wanted = chosen_splits(source, splits)
    said = _said(reader, settings)
    shards = _plan(source, root, wanted, said)
    plan = hashlib.sha256("\n".join(shard.plan for shard in shards).encode()).hexdigest()
    if not options.overwrite and (root / FILE_NAME).exists():
        if (index := written_index(root, plan)) is None:
            raise ValueError(f"{root} holds other shards, or damaged ones: give another --to, or replace them with --overwrite.")
        return WriteResult(index, [], sum(map(options.part.takes, range(len(shards)))), [])
    writer = {**source.writer, "features": said}
    outline = ShardIndex({split: () for split in wanted}, {}, ids=source.ids if settings.keep else {}, writer=writer)
    make = FeatureShardWriter(settings)
    return FolderRun(root, plan, outline, shards, make, options.num_workers, options.engine, options.part).run(listener)


def chosen_splits(source: ShardIndex, splits: Sequence[str]) -> list[str]:
    """Return the splits to read; all where none is named.

    Raises:
        ValueError: the source has no such split.
    """
    if unknown := sorted(set(splits) - source.splits.keys()):
        raise ValueError(f"the shards have no split {', '.join(unknown)}; splits there: {', '.join(source.splits)}.")
    return [split for split in source.splits if not splits or split in splits]


def check_fits(source: ShardIndex, reader: FeatureReader) -> None:
    """Refuse shards that hold nothing of the modality.

    Raises:
        ValueError: no shard has a field that the transform reads.
    """
    read = reader.transform.extensions
    if not set(read) & source.fields.keys():
        there = ", ".join(sorted(source.fields)) or "none"
        raise ValueError(f"modality {reader.modality!r} reads the fields {', '.join(read)}, but the shards have only {there}.")


def _said(reader: FeatureReader, settings: FeatureShardSettings) -> dict[str, Any]:
    """Return what decides the features, for the index."""
    return {
        "model": reader.fingerprint(),
        "modality": reader.modality,
        "transform": transform_fingerprint(reader.transform),
        "layer": reader.layers[0],
        "vector": settings.features.vector,
        "device": settings.features.device,
        **{name: value for name, value in asdict(settings).items() if name != "features"},
    }


def _plan(source: ShardIndex, root: Path, splits: Sequence[str], said: dict[str, Any]) -> list[PlannedJob]:
    planned = []
    for split in splits:
        for info in source.splits[split]:
            location = source.location(info)
            target = root / Path(info.path).name
            facts = json.dumps([info.sha256 or file_sha256(Path(location)), info.samples, said], sort_keys=True)
            plan = hashlib.sha256(facts.encode()).hexdigest()
            planned.append(PlannedJob(location, bool(source.url), info, False, target, split, plan))
    names = Counter(shard.path for shard in planned)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"the source has several shards of the name {twice[0]}: read its folders one by one.")
    return planned


@dataclass(frozen=True)
class FeatureShardWriter:
    """Makes shards of features; the result depends on the shard and the settings only.

    Args:
        settings: what the new shards hold.
    """

    settings: FeatureShardSettings

    def __call__(self, job: ShardJob) -> tuple[ShardInfo, Contents]:
        """Write the new shard: the same keys in the same order.

        Raises:
            SampleError: the source is damaged, or a sample cannot be decoded and ``on_error`` is "raise".
            OSError: the disk is full, or the source cannot be fetched.
        """
        reader = cached_reader(self.settings.features)
        with one_thread(self.settings.features.device):
            return rewrite_shard(job, self.settings.batch_size, partial(self._batch, reader))

    def _batch(
        self, reader: FeatureReader, samples: Iterator[RawSample], problems: list[str]
    ) -> Iterator[tuple[RawSample, dict[str, bytes]]]:
        """Yield samples and their fields, with features those that have the modality."""
        raws, items = [], []
        for raw in samples:
            raws.append(raw)
            items.append(self._item(reader.transform, raw, problems))
        there = [Sample(str(number), {reader.modality: item}) for number, item in enumerate(items) if item is not None]
        found = iter(reader(collate(there).items[reader.modality])[reader.layers[0]] if there else [])
        for raw, item in zip(raws, items, strict=True):
            yield raw, self._fields(raw, None if item is None else next(found))

    def _item(self, transform: Transform, raw: RawSample, problems: list[str]) -> Item | None:
        field = next((extension for extension in transform.extensions if extension in raw.fields), None)
        if field is None:
            return None
        try:
            return transform(transform.decode(raw.fields[field]), torch.Generator().manual_seed(0), False)
        except ValueError as error:
            problem = SampleError(raw.shard, raw.key, field, str(error))
            if self.settings.on_error == "raise":
                raise problem from error
            problems.append(str(problem))
            return None

    def _fields(self, raw: RawSample, features: Tensor | None) -> dict[str, bytes]:
        kept = {name: data for name, data in raw.fields.items() if (self.settings.keep and name != FIELD) or name == METADATA}
        made = {} if features is None else {FIELD: npy(features, self.settings.precision)}
        return kept | made or {METADATA: b"{}"}  # a sample has at least one field


def npy(features: Tensor, precision: Precision) -> bytes:
    """Return the bytes of a ``.npy`` file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, as_stored(features, precision), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def as_stored(features: Tensor, precision: Precision) -> np.ndarray:
    """Return features as they lie in a file.

    Raises:
        ValueError: a number is not finite, or too large for float16.
    """
    if not features.isfinite().all():
        raise ValueError("the model gives features that are not finite.")
    if precision == "float16" and float(features.abs().max()) > LARGEST_HALF:
        raise ValueError(f"float16 holds numbers up to {LARGEST_HALF:,.0f}, a feature is {float(features.abs().max()):,.0f}: use float32.")
    return np.ascontiguousarray(features.numpy(), stored_type(precision))


def stored_type(precision: Precision) -> np.dtype:
    """Return the type of the numbers in a file: of fixed byte order, so that the bytes do not depend on the machine."""
    return np.dtype({"float16": "<f2", "float32": "<f4"}[precision])
