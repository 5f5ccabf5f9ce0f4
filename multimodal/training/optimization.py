"""Parameter groups and the learning-rate schedule."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Split the trainable parameters: one-dimensional ones (biases, norms, scales, mask tokens) are not decayed (BEiT, timm)."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    flat = [parameter for parameter in trainable if parameter.ndim <= 1]
    return [{"params": [parameter for parameter in trainable if parameter.ndim > 1]}, {"params": flat, "weight_decay": 0.0}]


def optimization(module: nn.Module, optimizer: OptimizerCallable, schedule: Callable[[Optimizer, int], LRScheduler], steps: int) -> Any:
    """Return what ``configure_optimizers`` returns: the optimizer, and a schedule that moves once per step.

    Args:
        module: whose trainable parameters to optimize, in ``parameter_groups``.
        optimizer: builds the optimizer from the groups.
        schedule: builds the schedule from the optimizer and the number of steps.
        steps: of the whole run.
    """
    built = optimizer(parameter_groups(module))
    return {"optimizer": built, "lr_scheduler": {"scheduler": schedule(built, steps), "interval": "step"}}


def total_steps(trainer: L.Trainer) -> int:
    """Return the optimizer steps of the whole run.

    Raises:
        ValueError: the run has no end, so that no schedule can be made.
    """
    steps = trainer.estimated_stepping_batches
    if math.isinf(steps):
        raise ValueError(f"the schedule needs an end of the run: set max_epochs (it is {trainer.max_epochs}) or max_steps of the trainer.")
    return int(steps)


def zero_of(modules: Iterable[nn.Module]) -> Tensor:
    """Return a scalar 0 that every trainable parameter of the modules gets a gradient of 0 from, whatever its value."""
    empty = [parameter.flatten()[:0].sum() for module in modules for parameter in module.parameters() if parameter.requires_grad]
    return torch.stack(empty).sum() if empty else torch.zeros(())


class WarmupCosine(LambdaLR):
    """Linear warm-up from 0 to the optimizer's learning rate, then a cosine to a share of it.

    Args:
        optimizer: its learning rates are the peaks.
        total_steps: optimizer steps of the whole run.
        warmup: share of the steps spent warming up, in [0, 1).
        final: last learning rate as a share of the peak, in [0, 1].
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.05, final: float = 0.01) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup must be a share of the steps in [0, 1), got {warmup}.")
        if not 0 <= final <= 1:
            raise ValueError(f"final must be a share of the peak in [0, 1], got {final}.")
        warmup_steps = warmup * total_steps

        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / (warmup_steps + 1)  # the first step learns too
            done = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
            return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

        super().__init__(optimizer, factor)
