"""A model that is used and not trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Frozen(nn.Module):
    """Hold a model aside: it moves with its owner, and is in no other way part of it.

    Its weights are not among the owner's parameters, so no optimizer and no process group sees them; they are not in its checkpoints, which
    name where they came from instead; and its dropout stays off when the owner trains.

    Args:
        model: to hold.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "held", model.requires_grad_(False).eval())  # past nn.Module, which would make it a part
        self.held: nn.Module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        return self.held(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frozen:
        super()._apply(fn, recurse)
        self.held._apply(fn, recurse)
        return self
