"""Which samples go into which shard, and what decides the bytes of a shard, found out before anything is read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from multimodal.datamodules.writing.sources.samples import SourceSample
from multimodal.datamodules.writing.sources.scan import OnError

DEFAULT_SAMPLES_PER_SHARD = 1000
_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "KI": 1024, "MI": 1024**2, "GI": 1024**3}


@dataclass(frozen=True)
class ShardLimits:
    """When a shard is full.

    Args:
        samples: most samples of a shard, at least 1; None: no such limit.
        bytes: about how large a shard may become; a sample that is larger has a shard of its own. None: no such limit.

    Raises:
        ValueError: no limit, or one below 1.
    """

    samples: int | None = DEFAULT_SAMPLES_PER_SHARD
    bytes: int | None = None

    def __post_init__(self) -> None:
        if self.samples is None and self.bytes is None:
            raise ValueError("a shard needs a limit: samples or bytes.")
        for name, value in (("samples-per-shard", self.samples), ("shard-size", self.bytes)):
            if value is not None and value < 1:
                raise ValueError(f"--{name} must be at least 1, got {value}.")

    def cut(self, samples: Sequence[SourceSample]) -> Iterator[Sequence[SourceSample]]:
        """Yield the samples of one shard after the other."""
        start, size = 0, 0
        for place, sample in enumerate(samples):
            own = sample.size if self.bytes is not None else 0
            if place > start and (place - start == self.samples or (self.bytes is not None and size + own > self.bytes)):
                yield samples[start:place]
                start, size = place, 0
            size += own
        if samples:
            yield samples[start:]


@dataclass(frozen=True)
class PlannedShard:
    """A shard to be written.

    Args:
        split: that it belongs to.
        path: its name in the folder of the shards.
        samples: in order.
        on_error: whether a sample that cannot be read stops the run or is left out.
    """

    split: str
    path: str
    samples: Sequence[SourceSample]
    on_error: OnError

    @property
    def plan(self) -> str:
        """A hash of all that decides the bytes, time and size of the files included, without reading them."""
        return hashlib.sha256(repr((self.on_error, list(self.samples))).encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def num_samples(self) -> int:
        """How many samples are to be written, those that may be left out included."""
        return len(self.samples)


def plan_shards(splits: Mapping[str, Sequence[SourceSample]], limits: ShardLimits, on_error: OnError) -> list[PlannedShard]:
    """Return the shards of all splits: ``<split>-000000.tar`` and so on."""
    return [
        PlannedShard(split, f"{split}-{number:06d}.tar", part, on_error)
        for split, samples in splits.items()
        for number, part in enumerate(limits.cut(samples))
    ]


def plan_identity(splits: Mapping[str, Iterable[SourceSample]], settings: Mapping[str, object]) -> str:
    """Return a hash of what is to be written: samples and settings, not the place or time of files; so it is the same on every machine."""
    digest = hashlib.sha256(repr(sorted(settings.items())).encode("utf-8", "surrogatepass"))
    for split, samples in splits.items():
        digest.update(f"\n{split}".encode())
        for sample in samples:
            digest.update(b"\n" + sample.identity.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def parse_size(argument: str) -> int:
    """Return the number of bytes of ``256MB``, ``1.5G`` or ``100000``; units of 1000, or of 1024 with an ``i`` (``256MiB``).

    Raises:
        ValueError: not of that form.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMG]I?|)B?\s*", argument.upper())
    if match is None:
        raise ValueError(f"--shard-size {argument!r} is not a size, as 256MB, 1.5GB or 100MiB are.")
    return int(float(match[1]) * _UNITS[match[2]])
