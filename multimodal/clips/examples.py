"""Which clips are nearest to the centroids of clusters, and how often each cluster is used: what a page about clusters shows."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from multimodal.clips.feature_stream import clips_of
from multimodal.clips.interfaces import Windows
from multimodal.datamodules.shards.cache import ShardCache
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.shards.reader import read_samples
from multimodal.errors import SampleError
from multimodal.protocols import Tokenizer
from multimodal.tokenizers.clip_file import FIELD


class Example(NamedTuple):
    """A clip near a centroid.

    Args:
        distance: squared, of its feature from the centroid.
        shard: name of its shard.
        position: of its sample in the shard.
        key: of its sample.
        start_s: of the clip.
        end_s: of the clip.
    """

    distance: float
    shard: str
    position: int
    key: str
    start_s: float
    end_s: float

    @property
    def middle_s(self) -> float:
        """The moment in the middle of the clip."""
        return (self.start_s + self.end_s) / 2


@dataclass
class ClusterUse:
    """What clips say of clusters.

    Args:
        counts: ``(clusters,)`` int64, clips of each.
        nearest: cluster -> its nearest clips, the nearest first.
        repeats: share of clips whose cluster is that of the clip before, in the same recording.
        distortion: mean squared distance of a feature from the centroid of its cluster.
    """

    counts: Tensor
    nearest: dict[int, list[Example]] = field(default_factory=dict)
    repeats: float = 0.0
    distortion: float = 0.0

    def largest(self, count: int) -> list[int]:
        """Return the clusters with the most clips, the largest first."""
        order = self.counts.argsort(descending=True, stable=True)[:count].tolist()
        return [cluster for cluster in order if self.counts[cluster]]


def use_of_clusters(source: ShardIndex, split: str, tokenizer: Tokenizer, per_cluster: int) -> ClusterUse:
    """Go through the clips of a split once.

    Args:
        source: shards with ids and features of clips.
        split: which.
        tokenizer: that made the ids.
        per_cluster: clips to remember of each.

    Raises:
        SampleError: a shard is damaged, or its clips lack ids or features, or have ids of another tokenizer.
    """
    fingerprint, heaps = tokenizer.fingerprint(), defaultdict[int, list[tuple[float, Example]]](list)
    use, pairs, repeated, squared = ClusterUse(torch.zeros(tokenizer.vocab_sizes[0], dtype=torch.int64)), 0, 0, 0.0
    for shard, position, raw, clips in clips_of(source, split):
        if clips.ids is None or clips.features is None or clips.tokenizer != fingerprint:
            lacks = "no ids" if clips.ids is None else "no features" if clips.features is None else "ids of another tokenizer"
            raise SampleError(raw.shard, raw.key, FIELD, f"its clips have {lacks}: encode with --keep-features and this tokenizer.")
        ids = clips.ids
        distances = (clips.features.float() - tokenizer.decode(ids)).square().sum(1)
        squared += float(distances.double().sum())
        use.counts += torch.bincount(ids, minlength=len(use.counts))
        pairs, repeated = pairs + len(ids) - 1, repeated + sum(a == b for a, b in pairwise(ids.tolist()))
        for cluster, distance, start, end in zip(*(x.tolist() for x in (ids, distances, clips.starts, clips.ends)), strict=True):
            _remember(heaps[cluster], Example(distance, shard, position, raw.key, start, end), per_cluster)
    use.nearest = {cluster: sorted(example for _, example in heap) for cluster, heap in heaps.items()}
    use.repeats, use.distortion = repeated / max(1, pairs), squared / max(1, int(use.counts.sum()))
    return use


def _remember(heap: list[tuple[float, Example]], example: Example, most: int) -> None:
    """Keep the nearest: the farthest of those that are kept lies at the root."""
    if len(heap) < most:
        heapq.heappush(heap, (-example.distance, example))
    elif -example.distance > heap[0][0]:
        heapq.heapreplace(heap, (-example.distance, example))


def pictures_of_examples(
    examples: Sequence[Example],
    recordings: ShardIndex,
    windows: Windows,
    height: int,
    listener: Callable[[int, int], object] | None = None,
) -> dict[tuple[str, int, float], Tensor]:
    """Return (shard, position, middle in seconds) -> the picture of that moment, ``(3, height, width)`` uint8.

    Args:
        examples: of clips.
        recordings: shards of the recordings: those that the clips were made from.
        windows: find the pictures.
        height: of a picture, in pixels.
        listener: told of recordings that are done, and bytes.

    Raises:
        SampleError: a recording is not in its shard, or cannot be decoded.
        ValueError: a shard is not there.
    """
    moments: dict[str, dict[int, set[Example]]] = defaultdict(lambda: defaultdict(set))
    for example in examples:
        moments[example.shard][example.position].add(example)
    there = {Path(info.path).name: info for split in recordings.splits.values() for info in split}
    found: dict[tuple[str, int, float], Tensor] = {}
    for shard, samples in moments.items():
        if shard not in there:
            raise ValueError(f"{recordings.root} has no shard {shard}: name the shards that the clips were made from.")
        info, location = there[shard], recordings.location(there[shard])
        path = ShardCache().fetch(location, info) if recordings.url else location
        for position, raw in zip(samples, read_samples(path, list(samples), info.samples), strict=True):
            if isinstance(raw, SampleError):
                raise raw
            own = sorted(samples[position], key=lambda example: example.middle_s)
            name = next((name for name in windows.extensions if name in raw.fields), None)
            if name is None or raw.key != own[0].key:
                raise SampleError(raw.shard, raw.key, name or windows.extensions[0], f"the recording of {own[0].key} is not here.")
            try:
                pictures = windows.pictures_of(raw.fields[name], [example.middle_s for example in own], height)
            except ValueError as error:
                raise SampleError(raw.shard, raw.key, name, str(error)) from error
            found |= {(shard, position, example.middle_s): picture for example, picture in zip(own, pictures, strict=True)}
            if listener:
                listener(1, len(raw.fields[name]))
    return found
