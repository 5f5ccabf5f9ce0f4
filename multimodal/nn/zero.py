"""A zero that gives gradients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def zero_of(parameters: Iterable[Tensor]) -> Tensor:
    """Return a scalar 0 that every trainable parameter gets a gradient of 0 from, whatever its value; a plain 0 where there is none.

    One node for all of them: sums of empty slices would cost several small kernels for each parameter and step.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    return _Zero.apply(*trainable) if trainable else torch.zeros(())  # type: ignore[no-untyped-call]


class _Zero(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:
        ctx.like = [(parameter.shape, parameter.dtype, parameter.device) for parameter in parameters]
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        zeros = {kind: torch.zeros((), dtype=kind[0], device=kind[1]) for kind in {(dtype, device) for _, dtype, device in ctx.like}}
        return tuple(zeros[dtype, device].expand(shape) for shape, dtype, device in ctx.like)
