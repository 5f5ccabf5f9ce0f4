"""A layout that is another one with other names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from multimodal.pretrained.checkpoint import Checkpoint
from multimodal.pretrained.format import Format, ImportOptions, Part, Shapes, Written
from multimodal.pretrained.keymap import KeyMap
from multimodal.pretrained.model import PretrainedModel

Rules = Sequence[tuple[str, str]]
"""(pattern, what it becomes) pairs, as of ``re.sub``; the first that fits a name is applied."""

PATHS = {"q": "query", "k": "key", "v": "value"}
MEMORY_TO_FILE: Rules = (
    *((rf"(^|\.)layers\.(\d+)\.attention\.{p}_proj\.", rf"\1encoder.layer.\2.attention.attention.{name}.") for p, name in PATHS.items()),
    (r"(^|\.)layers\.(\d+)\.attention\.o_proj\.", r"\1encoder.layer.\2.attention.output.dense."),
    (r"(^|\.)layers\.(\d+)\.mlp\.fc1\.", r"\1encoder.layer.\2.intermediate.dense."),
    (r"(^|\.)layers\.(\d+)\.mlp\.fc2\.", r"\1encoder.layer.\2.output.dense."),
    (r"(^|\.)layers\.(\d+)\.relative_position_bias\.", r"\1encoder.layer.\2.attention.attention.relative_position_bias."),
    (r"(^|\.)layers\.(\d+)\.", r"\1encoder.layer.\2."),
    (r"(^|\.)shared_position_bias\.", r"\1encoder.relative_position_bias."),
)
"""Names in memory of vision transformers in transformers 5 -> names in its files."""
FILE_TO_MEMORY: Rules = (
    *((rf"encoder\.layer\.(\d+)\.attention\.attention\.{name}\.", rf"layers.\1.attention.{p}_proj.") for p, name in PATHS.items()),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"layers.\1.attention.o_proj."),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.", r"layers.\1.mlp.fc1."),
    (r"encoder\.layer\.(\d+)\.output\.dense\.", r"layers.\1.mlp.fc2."),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.relative_position_bias\.", r"layers.\1.relative_position_bias."),
    (r"encoder\.layer\.(\d+)\.", r"layers.\1."),
    (r"encoder\.relative_position_bias\.", r"shared_position_bias."),
)
"""The way back."""


class Renamed(Format):
    """Read and write a layout through another of the same family.

    Args:
        base: the layout with the names that are known.
        layout: name of this one.
        to_base: rules from the names of this layout to those of ``base``.
        from_base: the way back.
        sign: pattern that a name of this layout has, and none of ``base`` has.
    """

    def __init__(
        self,
        base: Format,
        layout: str = "transformers-5",
        to_base: Rules = MEMORY_TO_FILE,
        from_base: Rules = FILE_TO_MEMORY,
        sign: str = r"(^|\.)layers\.0\.attention\.q_proj\.weight$",
    ) -> None:
        self.base, self.to_base, self.from_base, self.sign = base, to_base, from_base, re.compile(sign)
        self.family, self.layout, self.licence, self.source = base.family, layout, base.licence, base.source  # type: ignore[misc]

    def matches(self, shapes: Shapes, config: Mapping[str, Any]) -> bool:
        """Names of this layout, that are ``base``'s by their other names."""
        found = any(self.sign.search(name) for name in shapes)
        return found and self.base.matches({rename(name, self.to_base): shape for name, shape in shapes.items()}, config)

    def read(self, checkpoint: Checkpoint, options: ImportOptions) -> list[Part]:
        """Read; settings as of ``base``."""
        old = {rename(name, self.to_base): name for name in checkpoint.tensors}
        renamed = replace(checkpoint, tensors={new: checkpoint.tensors[name] for new, name in old.items()})
        return [replace(part, keymap=_with_names(part.keymap, old, self.from_base)) for part in self.base.read(renamed, options)]

    def write(self, model: nn.Module) -> Written:
        """Write as ``base`` does, with the names of this layout."""
        written = self.base.write(model)
        return replace(written, tensors={rename(name, self.from_base): x for name, x in written.tensors.items()})

    def options_for(self, model: PretrainedModel) -> ImportOptions:
        """Return what ``base`` has to be told."""
        return self.base.options_for(model)

    def holds(self, model: nn.Module) -> bool:
        """Return whether ``base`` can hold the model."""
        return self.base.holds(model)


def rename(name: str, rules: Rules) -> str:
    """Return what the first rule that fits makes of a name; the name itself where none fits."""
    for pattern, new in rules:
        made, count = re.subn(pattern, new, name, count=1)
        if count:
            return made
    return name


def _with_names(keymap: KeyMap, names: Mapping[str, str], rules: Rules) -> KeyMap:
    """Return the map for the names of a checkpoint; those that it lacks are told by their rule."""
    entries = [replace(entry, theirs=tuple(names.get(name, rename(name, rules)) for name in entry.theirs)) for entry in keymap.entries]
    return KeyMap(entries, keymap.ignored, keymap.kept)
