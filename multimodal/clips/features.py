"""Recordings as shards -> the same shards with the features of their clips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from multimodal.clips.recipe import ClipParts, ClipRecipe, cached_parts
from multimodal.clips.rewriting import Rewriting
from multimodal.datamodules.jobs.folder_run import WriteResult
from multimodal.datamodules.jobs.run_jobs import Advance
from multimodal.datamodules.shards.contents import METADATA, Contents
from multimodal.datamodules.shards.index import ShardIndex, ShardInfo
from multimodal.datamodules.shards.reader import RawSample
from multimodal.datamodules.streaming.bad_samples import OnError
from multimodal.datamodules.tokenizing.rewritten_shard import ShardJob, one_thread, rewrite_shard
from multimodal.datamodules.tokenizing.tokenize import RunOptions
from multimodal.errors import SampleError
from multimodal.recorded import settings_of
from multimodal.tokenizers.clip_file import FIELD, Clips, write_clips

Precision = Literal["float16", "float32"]
LARGEST_HALF = 65504.0


@dataclass(frozen=True)
class FeatureOptions:
    """What the new shards hold, and how it is made.

    Args:
        precision: of the features that are stored.
        keep: whether the recordings themselves stay in the new shards; other fields always do.
        batch_size: clips of a recording that the extractor gets at once, at least 1; it bounds the memory.
        device: of the extractor, "cpu" or "cuda".
        on_error: whether a recording that cannot be cut stops the run, or is written without clips and listed.

    Raises:
        ValueError: a setting outside its range.
    """

    precision: Precision = "float16"
    keep: bool = False
    batch_size: int = 8
    device: str = "cpu"
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        if self.precision not in ("float16", "float32"):
            raise ValueError(f"precision must be float16 or float32, got {self.precision!r}.")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}.")
        if self.on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be raise or skip, got {self.on_error!r}.")


def write_clip_features(
    source: ShardIndex,
    folder: Path | str,
    recipe: ClipRecipe,
    how: FeatureOptions | None = None,
    options: RunOptions | None = None,
    listener: Advance | None = None,
) -> WriteResult:
    """Write, for every shard of a source, a shard of the same name with ``<key>.clips.safetensors`` in each sample, and the index.

    A run that was interrupted goes on with the shards that are not finished.

    Args:
        source: holds the recordings.
        folder: made if it is not there; one that holds the result already stays as it is.
        recipe: windows and extractor.
        how: what the new shards hold.
        options: who does the work.
        listener: told of samples and bytes that are done.

    Raises:
        SampleError: a sample cannot be read, or cannot be cut and ``on_error`` is "raise".
        ValueError: recipe, options and source do not fit each other, the folder holds other shards, or another process writes there.
        OSError: the disk is full (the message names the shard), or a worker process died.
    """
    how = how or FeatureOptions()
    parts = cached_parts(recipe, how.device)
    read = parts.windows.extensions
    if not set(read) & source.fields.keys():
        raise ValueError(f"clips are cut of the fields {', '.join(read)}, but the shards have only {', '.join(sorted(source.fields))}.")
    said = {
        "windows": settings_of(parts.windows),
        "extractor": parts.fingerprint(),
        "extractor_class": type(parts.extractor).__name__,
        "dim": parts.extractor.dim,
        "precision": how.precision,
        "keep": how.keep,
        "batch_size": how.batch_size,
        "device": how.device.partition(":")[0],
        "on_error": how.on_error,
    }
    return Rewriting(source, Path(folder), said).run(ClipFeatureWriter(recipe, how), options, listener)


@dataclass(frozen=True)
class ClipFeatureWriter:
    """Makes shards with features of clips; the result depends on the shard and the settings only.

    Args:
        recipe: windows and extractor.
        how: what the new shards hold.
    """

    recipe: ClipRecipe
    how: FeatureOptions

    def __call__(self, job: ShardJob) -> tuple[ShardInfo, Contents]:
        """Write the new shard: the same keys in the same order.

        Raises:
            SampleError: the source is damaged, or a recording cannot be cut and ``on_error`` is "raise".
            OSError: the disk is full, or the source cannot be fetched.
        """
        with one_thread(self.how.device):
            parts = cached_parts(self.recipe, self.how.device)
            return rewrite_shard(job, 1, partial(self._samples, parts))  # one by one: a recording may be large

    def _samples(self, parts: ClipParts, samples: Iterator[RawSample], problems: list[str]) -> Iterator[tuple[RawSample, dict[str, bytes]]]:
        for raw in samples:
            field = next((name for name in parts.windows.extensions if name in raw.fields), None)
            dropped = {FIELD} if self.how.keep else {FIELD, *parts.windows.extensions}
            fields = {name: data for name, data in raw.fields.items() if name not in dropped}
            try:
                made = {} if field is None else {FIELD: write_clips(self.clips(parts, raw.fields[field]))}
            except ValueError as error:
                problem = SampleError(raw.shard, raw.key, str(field), str(error))
                if self.how.on_error == "raise":
                    raise problem from error
                problems.append(str(problem))
                made = {}
            yield raw, fields | made or {METADATA: b"{}"}  # a sample has at least one field

    def clips(self, parts: ClipParts, data: bytes) -> Clips:
        """Return the clips of one recording.

        Raises:
            ValueError: it cannot be cut, or its features are not finite or too large for what they are stored as.
        """
        cut, starts, ends = parts.windows(data), list[float](), list[float]()
        found: list[Tensor] = []
        while batch := list(islice(cut, self.how.batch_size)):
            starts += [clip.start_s for clip in batch]
            ends += [clip.end_s for clip in batch]
            values = torch.stack([clip.values for clip in batch]).to(parts.device)
            found.append(_stored(parts.extractor(values).float().cpu(), self.how.precision))
        return Clips(torch.tensor(starts), torch.tensor(ends), torch.cat(found), extractor=parts.fingerprint())


def _stored(features: Tensor, precision: Precision) -> Tensor:
    if not bool(features.isfinite().all()):
        raise ValueError("the extractor gives features that are not finite.")
    if precision == "float16" and float(features.abs().max()) > LARGEST_HALF:
        largest = f"{float(features.abs().max()):,.0f}"
        raise ValueError(f"float16 holds numbers up to {LARGEST_HALF:,.0f}, a feature is {largest}: use --precision float32.")
    return features.half() if precision == "float16" else features
