"""Compiled layers (``torch.compile``) that keep the names of their parameters.

A layer is compiled in two pieces, before and after the mixing of attention: the mixing takes the fastest of several ways for each
batch, and what drops branches draws numbers at a rate of each layer's own. So all layers share one program, whatever the lengths.
"""

from __future__ import annotations

import torch

from multimodal.nn import Encoder

HALVES = ("project", "finish")


def compile_layers(encoder: Encoder) -> None:
    """Compile the layers of an encoder when they first run; nothing happens to layers that are compiled."""
    for layer in encoder.layers():
        for half in HALVES:
            if half not in vars(layer):
                setattr(layer, half, torch.compile(getattr(layer, half), dynamic=True))


def release_layers(encoder: Encoder) -> None:
    """Undo ``compile_layers``."""
    for layer in encoder.layers():
        for half in HALVES:
            vars(layer).pop(half, None)
