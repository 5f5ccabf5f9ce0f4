"""A model that is used and not trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

_OF_ALL_MODULES = frozenset(vars(nn.Module()))


class Frozen(nn.Module):
    """Hold a model aside: it moves with its owner, and is in no other way part of it.

    Its weights are not among the owner's parameters, so no optimizer and no process group sees them; they are not in its checkpoints, which
    have its fingerprint instead; and its dropout stays off when the owner trains.

    Args:
        model: to hold.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "held", model.requires_grad_(False).eval())  # past nn.Module, which would make it a part
        self.held: nn.Module
        self._fingerprint = ""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        return self.held(*args, **kwargs)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of the model's class, its own numbers (such as the layer that is read), and its weights as they came."""
        if not self._fingerprint:
            own = {name: value for name, value in vars(self.held).items() if name not in _OF_ALL_MODULES and _is_number(value)}
            digest = hashlib.sha256(json.dumps([type(self.held).__qualname__, own], sort_keys=True).encode())
            for name, tensor in sorted(chain(self.held.named_parameters(), self.held.named_buffers()), key=lambda pair: pair[0]):
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frozen:
        self.fingerprint()  # before the weights are rounded to another type
        super()._apply(fn, recurse)
        self.held._apply(fn, recurse)
        return self


def _is_number(value: Any) -> bool:
    """Return whether a value is a number or none, or a tuple of such."""
    return all(map(_is_number, value)) if isinstance(value, tuple) else value is None or isinstance(value, (bool, int, float))
