"""Models of our own as teachers, of any modality.

Letters in shapes: n tokens, b items, d width, c classes.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from multimodal.protocols import Teacher


class EncoderTeacher(Teacher):
    """An encoder that was trained, saved or imported: the features of the tokens of its input, or the logits of a head for whole items.

    It reads the values that the tokenizer reads, cut by its own embedding. (Images of another size, and models of timm and transformers:
    ``multimodal.tokenizers.image``.)

    Args:
        folder: that ``save_pretrained``, ``multimodal export --format multimodal`` or ``multimodal import`` wrote.
        modality: whose embedding reads the values; None: the model's only one.
        layer: whose output, from 0 or backwards from -1, without the encoder's last norm; None: the last one with it.
        head: whose logits for whole items to give instead ("classes" of a classifier; BEATs from its third iteration on); None: features.

    Raises:
        ValueError: the folder holds no such model, it has no such modality, layer or head, or both layer and head are named.
    """

    def __init__(self, folder: str, modality: str | None = None, layer: int | None = None, head: str | None = None) -> None:
        super().__init__()
        from multimodal.pretrained import PretrainedModel, from_pretrained

        model = from_pretrained(folder)
        if not isinstance(model, PretrainedModel):
            raise ValueError(f"{folder} holds a {type(model).__name__}, which has no features of tokens.")
        if head is not None and layer is not None:
            raise ValueError(f"a head reads the encoder's output: leave out layer {layer}, or head {head!r}.")
        there = [name for name, module in model.heads.items() if hasattr(module, "num_classes")]
        if head is not None and head not in there:
            raise ValueError(f"{folder} has no head {head!r} with logits of whole items, only {there}.")
        self.model, self.modality, self.head, self.of_items = model, model.only_modality(modality), head, head is not None
        self.layers = () if layer is None else tuple(model.layer_indices([layer]))
        self.number = None if head is None else there.index(head)  # a fingerprint counts numbers: words may be paths

    @property
    def dim(self) -> int:
        """Width of the encoder, or number of classes."""
        return self.model.encoder.dim if self.head is None else cast(int, self.model.heads[self.head].num_classes)

    @torch.no_grad()
    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the features of tokens ``(n, d)``, or the logits of items ``(b, c)``, float32."""
        if self.head is not None:
            return self.model.logits(self.model.features(values, lengths, self.modality), self.head).float()
        given = None if lengths is None else {self.modality: lengths}
        encoded, layers, _, _ = self.model.encode({self.modality: values}, given, self.layers)
        return (layers[0] if layers else encoded.tokens).float()
