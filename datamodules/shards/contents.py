"""What shards hold, counted while they are written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

METADATA = "json"
"""The field with the metadata of a sample: a JSON object, with its label and its source among others."""
LABEL = "label"
"""The entry of the metadata with the class of a sample, a string."""
TAGS = "labels"
"""The entry with the several classes of a sample: a list of different strings, empty where it is none of them."""


@dataclass
class Contents:
    """Counts over the samples of one shard, or of several.

    Args:
        samples: number of samples.
        fields: field -> samples that have it.
        field_bytes: field -> bytes.
        class_counts: label -> samples.
        tag_counts: one of several labels -> samples.
        problems: one line for each sample that was left out.
    """

    samples: int = 0
    fields: Counter[str] = field(default_factory=Counter)
    field_bytes: Counter[str] = field(default_factory=Counter)
    class_counts: Counter[str] = field(default_factory=Counter)
    tag_counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, fields: Mapping[str, bytes]) -> None:
        """Count a sample.

        Raises:
            ValueError: the metadata field holds no JSON object; the sample is not counted.
        """
        metadata = metadata_of(fields[METADATA]) if METADATA in fields else {}
        self.samples += 1
        for name, data in fields.items():
            self.fields[name] += 1
            self.field_bytes[name] += len(data)
        self.class_counts.update(found_classes(metadata))
        self.tag_counts.update(found_tags(metadata))

    def merge(self, other: Contents) -> None:
        """Add the counts of other shards."""
        self.samples += other.samples
        self.fields.update(other.fields)
        self.field_bytes.update(other.field_bytes)
        self.class_counts.update(other.class_counts)
        self.tag_counts.update(other.tag_counts)
        self.problems += other.problems

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Contents:
        """Return what ``vars()`` of contents became in JSON."""
        counts: dict[str, Any] = {name: Counter(value) if isinstance(value, dict) else value for name, value in content.items()}
        return cls(**counts)


def metadata_of(data: bytes) -> dict[str, Any]:
    """Return the JSON object that a metadata field holds.

    Raises:
        ValueError: it holds none.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the metadata is not a JSON object ({error}).") from None
    if not isinstance(content, dict):
        raise ValueError(f"the metadata is not a JSON object but {str(content)[:40]!r}.")
    return content


def tags_of(metadata: Mapping[str, Any]) -> list[str] | None:
    """Return the several labels of a sample; None where its metadata say nothing of them.

    Raises:
        ValueError: they are no list of different strings.
    """
    found = metadata.get(TAGS)
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found) or len(set(found)) < len(found):
        raise ValueError(f"the labels {str(found)[:60]!r} are not a list of different strings.")
    return found


def found_classes(metadata: Mapping[str, Any]) -> list[str]:
    """Return the label of a sample, alone in a list; nothing where it has none, or no string."""
    label = metadata.get(LABEL)
    return [label] if isinstance(label, str) else []


def found_tags(metadata: Mapping[str, Any]) -> list[str]:
    """Return the several labels of a sample; nothing where it has none, or what stands there are none."""
    try:
        return tags_of(metadata) or []
    except ValueError:
        return []


def total(parts: Iterable[Contents]) -> Contents:
    """Return the counts of all parts together."""
    result = Contents()
    for part in parts:
        result.merge(part)
    return result
