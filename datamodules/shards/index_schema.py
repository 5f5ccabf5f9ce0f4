"""What an index may say: the type and range of every value in it, so that nobody who uses it has to ask again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multimodal.datamodules.shards.index import ShardIndex, StoredIds

MOST_VIEWS = 10_000
MOST_VOCABULARIES = 1_000
MOST_IDS = 2**31
MOST = 2**60


def check_index(index: ShardIndex) -> None:
    """Refuse an index with a value of another type, or outside its range.

    Raises:
        ValueError: naming the place, the value and what is allowed.
    """
    for split, shards in index.splits.items():
        for number, shard in enumerate(shards):
            where = f"splits, {split!r}, shard {number}"
            _check_words(where, path=shard.path, sha256=shard.sha256)
            _check_counts(where, MOST, samples=shard.samples, bytes=shard.bytes)
    for name, info in index.fields.items():
        _check_words(f"fields, {name!r}", type=info.type)
        _check_counts(f"fields, {name!r}", MOST, samples=info.samples, bytes=info.bytes)
    for where, counts in (("classes", index.class_counts), ("tags", index.tag_counts)):
        for label, count in counts.items():
            _check_counts(where, MOST, **{label: count})
    for name, stored in index.ids.items():
        _check_stored(f"ids, {name!r}", stored)


def _check_stored(where: str, stored: StoredIds) -> None:
    _check_words(where, tokenizer=stored.tokenizer, tokenizer_class=stored.tokenizer_class, transform=stored.transform)
    _check_counts(where, MOST_VIEWS, crops=stored.crops)
    if stored.crops < 1:
        raise ValueError(f"{where}: crops must be at least 1, got {stored.crops}")
    if not _is_list(stored.vocab_sizes, int) or not 1 <= len(stored.vocab_sizes) <= MOST_VOCABULARIES:
        raise ValueError(f"{where}: vocab_sizes must be a list of 1 to {MOST_VOCABULARIES} numbers, got {_short(stored.vocab_sizes)}")
    if not 1 <= min(stored.vocab_sizes) <= max(stored.vocab_sizes) <= MOST_IDS:
        raise ValueError(f"{where}: vocab_sizes must be in [1, {MOST_IDS}], got {_short(stored.vocab_sizes)}")
    if not _is_list(stored.train, str):
        raise ValueError(f"{where}: train must be a list of names of splits, got {_short(stored.train)}")
    if type(stored.seed) is not int or type(stored.ragged) is not bool:
        raise ValueError(f"{where}: seed must be a whole number and ragged true or false, got {_short([stored.seed, stored.ragged])}")
    if not isinstance(stored.libraries, Mapping) or not all(isinstance(version, str) for version in stored.libraries.values()):
        raise ValueError(f"{where}: libraries must be names with versions, got {_short(stored.libraries)}")


def _check_words(where: str, **values: object) -> None:
    for name, value in values.items():
        if not isinstance(value, str):
            raise ValueError(f"{where}: {name} must be a string, got {_short(value)}")


def _check_counts(where: str, most: int, **values: object) -> None:
    for name, value in values.items():
        if type(value) is not int or not 0 <= value <= most:  # a bool is an int too
            raise ValueError(f"{where}: {name} must be a whole number in [0, {most}], got {_short(value)}")


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(type(part) is kind for part in value)


def _short(value: object) -> str:
    words = repr(value)
    return words if len(words) <= 60 else words[:57] + "..."
