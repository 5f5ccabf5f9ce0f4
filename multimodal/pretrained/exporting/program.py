"""Models as programs of torch.export: no Python of ours is needed to run them.

Letters in shapes: b samples, l tokens of a sample, m tokens with class and register tokens, d width, c classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from multimodal.batch import Item
from multimodal.pretrained.model import PretrainedModel
from multimodal.protocols import Embed

Output = Literal["features", "classes"]
EXAMPLES = 2
"""Samples of the example that is traced: 1 would be taken for a fixed number."""


class DenseModel(nn.Module):
    """A model with one way in and one way out, which can be traced.

    Items that are grids (images, clips), and spectrograms of one length, come as ``values`` alone. Sequences come padded to one length,
    with ``valid``, ``(b, l)`` bool, True at real tokens; classes do not depend on the padding, and what stands there in the features
    means nothing.

    Args:
        model: to be exported.
        modality: whose values; None: of the only one.
        output: "classes": the logits of the head of that name, ``(b, c)``; "features": all tokens, ``(b, m, d)``; None: classes where
            there is such a head.

    Raises:
        ValueError: the model has no head "classes", or does not say what its values look like.
    """

    def __init__(self, model: PretrainedModel, modality: str | None = None, output: Output | None = None) -> None:
        super().__init__()
        self.model, self.modality = model.eval(), model.only_modality(modality)
        self.output = output or ("classes" if "classes" in model.heads else "features")
        if self.output == "classes" and "classes" not in model.heads:
            raise ValueError(f"this model has no head 'classes', only {sorted(model.heads)}: export its features.")
        item = _example_of(model, self.modality)
        self.padded = item.ragged and _one_token_each(model.embeds[self.modality], item.values)
        self._example = item.values

    def forward(self, values: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return logits or features."""
        if self.padded:
            run = self.model.padded_logits if self.output == "classes" else self.model.forward_padded
            result: Tensor = run(values, valid, self.modality)
            return result
        features = self.model.features(values, modality=self.modality)
        return self.model.logits(features) if self.output == "classes" else features.x

    def example(self, length: int = 16, noise: bool = False) -> tuple[Tensor, ...]:
        """Return arguments for two items, of which the second of sequences is half as long.

        Args:
            length: tokens of sequences.
            noise: random values of the kind of the example's, instead of the example's; of ids, 0 and 1, which are in every vocabulary.
        """
        shape = self._example.shape if not self.padded else (length, *self._example.shape[1:])
        values = (self._example[:1] if self.padded else self._example).expand(EXAMPLES, *shape).contiguous()
        if noise:
            high = 2 if values.dtype == torch.int64 else 256
            values = torch.randint(0, high, values.shape, generator=torch.Generator().manual_seed(0)).to(values.dtype)
        return (values, torch.arange(length) < torch.tensor([[length], [length // 2]])) if self.padded else (values,)

    def dynamic_shapes(self, max_length: int) -> tuple[dict[int, Any], ...]:
        """Return what may vary: the number of samples, and the length of sequences."""
        batch = Dim("batch", max=2**16)
        if not self.padded:
            return ({0: batch},)
        length = Dim("length", min=2, max=max_length)
        return ({0: batch, 1: length}, {0: batch, 1: length})


def _example_of(model: PretrainedModel, name: str) -> Item:
    """Return what an item looks like.

    Raises:
        ValueError: neither the model's transform nor its embedding tells.
    """
    embed = model.embeds[name]
    item = model.transform(name).example() if name in model.settings.transforms else None
    item = embed.example() if item is None and isinstance(embed, Embed) else item
    if item is None:
        raise ValueError(f"this model does not say what items of {name!r} look like: give its settings a transform that has an example.")
    return item


def _one_token_each(embed: nn.Module, values: Tensor) -> bool:
    """Return whether each entry of ragged values is a token of its own, as ids are and frames of a spectrogram are not."""
    assert isinstance(embed, Embed)
    with torch.no_grad():
        return len(embed.tokens(values, torch.tensor([len(values)])).inputs) == len(values)


def export_program(dense: DenseModel, path: str | Path | None = None, max_length: int = 512) -> ExportedProgram:
    """Trace a model, and write it as ``.pt2``.

    Args:
        dense: the model.
        path: of the file; None: nothing is written.
        max_length: most tokens of a sequence.
    """
    example = dense.example()
    with torch.no_grad():
        program = torch.export.export(dense, example, dynamic_shapes=dense.dynamic_shapes(max_length), strict=False)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        torch.export.save(program, path)
    return program
