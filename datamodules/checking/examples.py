"""A few samples of each split, in words, and what is wrong with them at first sight."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from multimodal.datamodules.checking.arrays import load_array
from multimodal.datamodules.shards.contents import METADATA, metadata_of
from multimodal.datamodules.shards.index import ShardIndex, mime_type
from multimodal.datamodules.shards.reader import RawSample, ShardReader
from multimodal.errors import SampleError

MOST_PREVIEWED_BYTES = 1 << 20
_PLAIN = "text/plain"
_ARRAY = "application/x-numpy"


@dataclass
class Example:
    """One sample.

    Args:
        key: its name.
        fields: (field, bytes, what it holds in a few words; "" for what only a decoder can tell).
        problems: what is wrong with it.
    """

    key: str
    fields: list[tuple[str, int, str]] = field(default_factory=list)
    problems: list[SampleError] = field(default_factory=list)


@dataclass
class Look:
    """What the first shard of a split shows.

    Args:
        shard: as the index names it; "" for a split without shards.
        examples: its first samples.
        combinations: fields that the same sample has -> how many samples of the shard have just these.
    """

    shard: str = ""
    examples: list[Example] = field(default_factory=list)
    combinations: Counter[tuple[str, ...]] = field(default_factory=Counter)


def look_at(index: ShardIndex, split: str, count: int) -> Look:
    """Return the first samples of a split and which fields go together in its first shard; only the headers are read of the others."""
    shards = index.shards(split)
    if not shards:
        return Look()
    reader = ShardReader(index.root / shards[0].path, shards[0].samples, shards[0].path)
    examples = [_example(index, reader.read(position)) for position in range(min(count, shards[0].samples))]
    combinations = Counter(tuple(sorted(entry.fields)) for entry in reader.entries)
    reader.close()
    return Look(shards[0].path, examples, combinations)


def _example(index: ShardIndex, raw: RawSample | SampleError) -> Example:
    if isinstance(raw, SampleError):
        return Example(raw.key, problems=[raw])
    example = Example(raw.key)
    for name, data in raw.fields.items():
        try:
            example.fields.append((name, len(data), _preview(name, data)))
        except ValueError as error:
            example.fields.append((name, len(data), ""))
            example.problems.append(SampleError(raw.shard, raw.key, name, str(error)))
    example.problems += _schema_problems(index, raw)
    return example


def _schema_problems(index: ShardIndex, raw: RawSample) -> list[SampleError]:
    samples = sum(index.num_samples(split) for split in index.splits)
    everywhere = {name for name, info in index.fields.items() if info.samples == samples}
    reasons = {name: "the index knows no such field." for name in raw.names if name not in index.fields}
    reasons |= {name: "the field is missing; the index says that every sample has it." for name in sorted(everywhere - set(raw.names))}
    return [SampleError(raw.shard, raw.key, name, reason) for name, reason in reasons.items()]


def _preview(name: str, data: bytes) -> str:
    """Return what a field holds in a few words.

    Raises:
        ValueError: it is empty, or not what its name says.
    """
    kind = mime_type(name)
    if not data:
        raise ValueError("the field is empty.")
    if len(data) > MOST_PREVIEWED_BYTES:
        return ""
    if name == METADATA:
        return _short(json.dumps(metadata_of(data), ensure_ascii=False))
    if kind == _ARRAY:
        array = load_array(data)
        return f"{array.dtype} {_shape(array.shape)}"
    if kind == _PLAIN:
        try:
            return _short(data.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8: {error.reason} at byte {error.start}.") from None
    return ""


def _short(words: str) -> str:
    words = " ".join(words.split())
    return words if len(words) <= 100 else words[:97] + "..."


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "one number"
