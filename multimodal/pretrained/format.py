"""What a foreign format is: how to know it, how to read it, how to write it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.keymap import KeyMap
from multimodal.pretrained.model import PretrainedModel

Shapes = Mapping[str, tuple[int, ...]]


class ImportOptions(NamedTuple):
    """What the user knows of a checkpoint that its tensors do not say.

    Args:
        num_heads: attention heads; None: the family's rule for the width.
        settings: name -> value, what else a family asks for (``--set name=value``); each format documents its own.
    """

    num_heads: int | None = None
    settings: Mapping[str, str] = {}


@dataclass(frozen=True)
class Part:
    """A model or tokenizer that is made of a checkpoint.

    Args:
        target: built, with first weights; a ``PretrainedModel`` or a ``PretrainedTokenizer``.
        keymap: where its tensors are.
        name: of its folder, where a checkpoint holds several; "" for one alone.
    """

    target: nn.Module
    keymap: KeyMap
    name: str = ""


@dataclass(frozen=True)
class Written:
    """A model in a foreign layout.

    Args:
        tensors: their names -> tensors.
        config: content of ``config.json``.
        preprocessor: content of ``preprocessor_config.json``.
        left_out: our names of tensors -> why this layout has no place for them.
    """

    tensors: dict[str, Tensor]
    config: dict[str, Any] = field(default_factory=dict)
    preprocessor: dict[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


class Format(ABC):
    """One layout of one family of models. ``read`` and ``write`` share a key map, so that a round trip is exact."""

    family: ClassVar[str]
    """Such as "beit"."""
    layout: ClassVar[str]
    """Whose names the tensors have: "transformers", "timm", or the original's repository."""
    licence: ClassVar[str]
    """Of the published weights. Non-commercial ones say so."""
    source: ClassVar[str]
    """Where the family is published (URL)."""

    @abstractmethod
    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """Return whether tensors of these names and shapes are of this format."""

    @abstractmethod
    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Return what the checkpoint holds, built but not yet loaded.

        Raises:
            ValueError: the sizes contradict each other, or an option is missing or unknown.
        """

    def write(self, model: nn.Module) -> Written:
        """Return a model in this layout.

        Raises:
            ValueError: this layout cannot hold the model; the message says why.
        """
        raise ValueError(f"{type(model).__name__} cannot be written as {self.family} in the layout of {self.layout}.")

    def options_for(self, model: PretrainedModel) -> ImportOptions:
        """Return what ``read`` has to be told of what ``write`` made of a model, as nothing that is written says it."""
        return ImportOptions(num_heads=model.encoder.num_heads)

    def holds(self, model: nn.Module) -> bool:
        """Return whether this layout can hold the model."""
        return isinstance(model, PretrainedModel) and model.settings.origin.family == self.family


def count_layers(shapes: Shapes, pattern: str) -> int:
    """Return the number of layers, of names that match ``pattern`` with the layer's number as its first group.

    Raises:
        ValueError: there are none, or a number is missing.
    """
    numbers = {int(found.group(1)) for name in shapes if (found := re.match(pattern, name))}
    if numbers != set(range(len(numbers))) or not numbers:
        raise ValueError(f"the layers are numbered {sorted(numbers)}; they must be numbered from 0 without gaps.")
    return len(numbers)


def heads_of(dim: int, options: ImportOptions) -> int:
    """Return the number of attention heads, which tensors do not tell: the user's, or one for each 64 channels (16 for ViT-H's 1280)."""
    if options.num_heads is not None:
        if dim % options.num_heads:
            raise ValueError(f"num_heads {options.num_heads} does not divide the width {dim}.")
        return options.num_heads
    return 16 if dim == 1280 else max(1, dim // 64)
