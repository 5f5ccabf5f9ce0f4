"""Layers of an encoder that keep their weights."""

from __future__ import annotations

from typing import Literal, cast

from torch import nn

from multimodal.nn import layer_of
from multimodal.training.encoder_training import EncoderTraining


def freeze(training: EncoderTraining, layers: int | Literal["all"]) -> list[nn.Module]:
    """Freeze parameters of a training's encoder; return the modules that are frozen as a whole, whose dropout is to stay off.

    Args:
        training: of which all parts are built.
        layers: the embeddings and so many first layers; "all": the whole encoder. 0: nothing.

    Raises:
        ValueError: it is no such number, or a layer decay has no effect.
    """
    encoder, modalities = training.encoder, training.modalities
    if layers == 0:
        return []
    if layers != "all" and not (isinstance(layers, int) and 0 < layers <= encoder.depth):
        raise ValueError(f"freeze_layers must be 'all' or 0 to the encoder's depth, {encoder.depth}; got {layers!r}.")
    if layers == "all" and training.layer_decay is not None:
        raise ValueError("layer_decay has no effect where freeze_layers is 'all': leave it out.")
    for name, parameter in training.named_parameters():
        if name.startswith(("encoder.", "modalities.")) and (layers == "all" or layer_of(name, encoder.depth) <= layers):
            parameter.requires_grad_(False)
    return [modalities, encoder] if layers == "all" else [modalities, *cast(list[nn.Module], list(encoder.blocks[:layers]))]
