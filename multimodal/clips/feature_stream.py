"""The features of all clips of shards, shard by shard and always in the same order: more than memory holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor, from_numpy

from multimodal.clips.recipe import SAID
from multimodal.datamodules.shards.cache import ShardCache
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.shards.reader import RawSample, read_samples
from multimodal.datamodules.streaming.locations import open_source
from multimodal.errors import SampleError
from multimodal.tokenizers.clip_file import FIELD, Clips, read_clips

ARRAYS = ".npy"
ROWS = 8192
NEEDED = {FIELD}


class FeatureStream:
    """Features ``(n, d)`` of recording after recording; it can be gone through again, and gives the same.

    Args:
        paths: folders or addresses of shards with features of clips, and ``.npy`` files with one feature a row, in the order to read.
        split: of the shards; files have none and are read whole.

    Raises:
        ValueError: nothing is there, shards hold no features of clips or have no such split, features were made by different extractors,
            or a file is no array of numbers with two axes.
    """

    def __init__(self, paths: Sequence[str], split: str = "train") -> None:
        if not paths:
            raise ValueError("name at least one folder of shards or .npy file.")
        self.split, self.parts = split, [Path(path) if path.endswith(ARRAYS) else _one_source(path, split) for path in paths]
        for part in self.parts:
            if isinstance(part, Path):
                _array(part)
        self.extractor = self._extractor()

    def _extractor(self) -> str:
        """Return the fingerprint of what made the features; empty for files, which do not say it."""
        made = {part.writer[SAID]["extractor"] for part in self.parts if isinstance(part, ShardIndex)}
        if len(made) > 1:
            raise ValueError(f"the features were made by {len(made)} different extractors ({', '.join(sorted(x[:12] for x in made))}).")
        return next(iter(made), "")

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the features of recordings, or of some thousand rows of a file.

        Raises:
            SampleError: a shard is damaged.
        """
        for part in self.parts:
            if isinstance(part, Path):
                array = _array(part)
                yield from (from_numpy(np.array(array[start : start + ROWS])) for start in range(0, len(array), ROWS))
            else:
                found = (stored.clips.features for stored in clips_of(part, self.split))
                yield from (features for features in found if features is not None)

    def num_samples(self) -> int:
        """Return how many recordings the shards have."""
        return sum(part.num_samples(self.split) for part in self.parts if isinstance(part, ShardIndex))


class StoredClips(NamedTuple):
    """The clips of one sample, and where they are.

    Args:
        shard: name of the shard.
        position: of the sample in the shard.
        raw: the sample, with no other field.
        clips: of its recording.
    """

    shard: str
    position: int
    raw: RawSample
    clips: Clips


def clips_of(source: ShardIndex, split: str) -> Iterator[StoredClips]:
    """Yield the clips of a split, sample by sample; samples without clips are left out.

    Raises:
        SampleError: a shard is damaged, or clips in it.
        OSError: a remote shard cannot be fetched.
    """
    for info in source.splits[split]:
        path = ShardCache().fetch(source.location(info), info) if source.url else source.location(info)
        for position, raw in enumerate(read_samples(path, range(info.samples), info.samples, NEEDED)):
            if isinstance(raw, SampleError):
                raise raw
            if FIELD in raw.fields:
                yield StoredClips(Path(info.path).name, position, raw, clips_in(raw))


def clips_in(raw: RawSample) -> Clips:
    """Return the clips of a sample.

    Raises:
        SampleError: they are damaged.
    """
    try:
        return read_clips(raw.fields[FIELD])
    except ValueError as error:
        raise SampleError(raw.shard, raw.key, FIELD, str(error)) from error


def source_of_clips(path: str) -> ShardIndex:
    """Return the one source that a path stands for.

    Raises:
        ValueError: there are several, or it holds no clips.
    """
    source = open_source(path)
    if FIELD not in source.fields or not isinstance(source.writer.get(SAID), dict):
        raise ValueError(f"{path} holds no {FIELD}: write the features with `multimodal clips features`.")
    return source


def _one_source(path: str, split: str) -> ShardIndex:
    source = source_of_clips(path)
    if not source.splits.get(split):
        raise ValueError(f"{path} has no split {split!r}; splits there: {', '.join(source.splits)}.")
    if source.writer[SAID].get("features") is False:
        raise ValueError(f"{path} holds ids without features: read the shards that it was made from, or encode with --keep-features.")
    return source


def _array(path: Path) -> np.ndarray:
    """Return a file as an array that is read from the disk bit by bit."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if array.ndim != 2 or array.dtype not in (np.float16, np.float32, np.float64):
        raise ValueError(f"{path} must hold one feature a row, as float16, float32 or float64; got {array.dtype} {array.shape}.")
    return array
