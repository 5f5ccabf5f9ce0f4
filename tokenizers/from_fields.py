"""Read a modality from fields of other names than its file extensions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from multimodal.batch import Item
from multimodal.protocols import LabelledTransform, Moments, Tokenizer, Transform

_FIELD = re.compile(r"[a-z0-9_+-]+(\.[a-z0-9_+-]+)*")


class FromFields(Transform):
    """A transform that looks for its files in the fields named, where samples have several files of one kind: ``left.png``, ``fr.ogg``.

    Args:
        fields: of the shards; a sample is read from the first that it has.
        transform: what is done with the file.

    Raises:
        ValueError: no fields, a name that no field can have, or a transform that reads a second field, which this one would not hand on.
    """

    def __init__(self, fields: list[str], transform: Transform) -> None:
        wrong = [name for name in fields if not _FIELD.fullmatch(name)]
        if wrong or not fields:
            raise ValueError(f"fields must be names such as png or left.png, in lower case, got {wrong or fields}.")
        if isinstance(transform, LabelledTransform):
            raise ValueError(f"a {type(transform).__name__} reads labels from a field of its own: name its fields in its own settings.")
        self.fields, self.transform = list(fields), transform

    @property
    def extensions(self) -> tuple[str, ...]:  # type: ignore[override]
        """The fields."""
        return tuple(self.fields)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The transform's own tokenizer, if it has one."""
        return getattr(self.transform, "tokenizer", None)

    def decode(self, data: bytes) -> Any:
        """Return the decoded file.

        Raises:
            ValueError: the transform refuses the file.
        """
        return self.transform.decode(data)

    def describe(self, data: bytes) -> Mapping[str, float | Moments]:
        """Return what the transform measures of a file."""
        return self.transform.describe(data)

    def example(self) -> Item | None:
        """Return the example of the transform."""
        return self.transform.example()

    def __call__(self, decoded: Any, generator: torch.Generator, train: bool) -> Item:
        """Return the item that the transform makes."""
        return self.transform(decoded, generator, train)
