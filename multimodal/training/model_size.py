"""What an encoder costs, found without computing anything: it is built and run on torch's device "meta", which holds shapes alone.

Letters: n tokens, d width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from multimodal.nn import Encoder

CHANNELS = 3
BYTES_PER_PARAMETER = 16
"""Of float32 training with AdamW: weight, gradient and two averages."""


@dataclass(frozen=True)
class InputSize:
    """The tokens of a sample.

    Args:
        name: as the user wrote it.
        grid: number of tokens along each axis.
        values: numbers in a token, which a linear layer embeds; 0 for ids, whose embedding costs nothing.
    """

    name: str
    grid: tuple[int, ...]
    values: int

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return math.prod(self.grid)


@dataclass(frozen=True)
class ModelSize:
    """What an encoder costs for one input.

    Args:
        parameters: of encoder and embedding.
        multiply_adds: of a forward pass of one sample, in matrix products.
        state_bytes: of weights, gradients and AdamW's averages, in float32.
        activation_bytes: of what one sample's forward pass keeps for the backward pass, in float32, attention weights included.
    """

    parameters: int
    multiply_adds: int
    state_bytes: int
    activation_bytes: int


def parse_input(text: str) -> InputSize:
    """Return the tokens of an input written as ``512`` (ids), ``224/16`` (side and patch, pixels) or ``16x224/2x16`` (a clip).

    Raises:
        ValueError: it is written otherwise, a number is 0, or a size is no multiple of its patch.
    """
    found = re.fullmatch(r"(?:(\d+)x)?(\d+)(?:/(?:(\d+)x)?(\d+))?", text)
    if found is None or (found[1] is None) != (found[3] is None) or "0" in found.groups():
        raise ValueError(f"input {text!r} is not understood: write 512 (tokens), 224/16 (side/patch) or 16x224/2x16 (frames x side/patch).")
    frames, side, tube, patch = (int(x) if x else None for x in found.groups())
    if patch is None:
        return InputSize(text, (side or 1,), 0)
    if side is None or side % patch or (frames or 0) % (tube or 1):
        raise ValueError(f"input {text!r} cannot be cut: its size must be a multiple of its patch.")
    plane = (side // patch, side // patch)
    values = CHANNELS * patch * patch * (tube or 1)
    return InputSize(text, plane if frames is None else (frames // (tube or 1), *plane), values)


def measure(build: Callable[[], Encoder], size: InputSize) -> ModelSize:
    """Return what an encoder costs for one input.

    Args:
        build: makes the encoder.
        size: of the input.
    """
    with torch.device("meta"):
        encoder = build().train()
        embed: nn.Module = nn.Linear(size.values, encoder.dim) if size.values else nn.Identity()
        tokens = torch.empty(1, size.tokens, size.values or encoder.dim, requires_grad=True)
        coordinates = torch.empty(size.tokens, len(size.grid), dtype=torch.int64)
    parameters = [*encoder.parameters(), *embed.parameters()]
    kept = _Kept(parameters)
    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(kept.add, lambda tensor: tensor):
        encoder.forward_dense(embed(tokens), coordinates)
    count = sum(parameter.numel() for parameter in parameters)
    return ModelSize(count, counter.get_total_flops() // 2, BYTES_PER_PARAMETER * count, kept.bytes)


class _Kept:
    """Adds up the memory of tensors that autograd keeps, each piece of memory once, parameters not counted."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.storages = {x.untyped_storage()._cdata: x.untyped_storage() for x in parameters}  # held, so that no number comes again
        self.bytes = 0

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.storages:
            self.storages[storage._cdata] = storage
            self.bytes += storage.nbytes()
        return tensor
