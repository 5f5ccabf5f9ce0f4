"""An average over the weights of past steps."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class AveragedWeights(WeightAveraging):
    """Keep an exponential moving average of the weights, and validate, save and export that (EMA; DeiT, BEiT's ``--model_ema``).

    After each step the average becomes ``decay`` times itself plus ``1 - decay`` times the weights. Validation runs on it, the
    ``state_dict`` of a checkpoint is it, and so are the weights at the end; training goes on from the weights themselves, which checkpoints
    hold too. Buffers are those of the last step. It is Lightning's ``WeightAveraging``, which copies more of a model than can be copied.

    Args:
        decay: share that the average keeps at each step, in [0, 1). BEiT: 0.9999; a run of a few hundred steps: 0.99.
        warmup: keep less at first, ``(1 + n) / (10 + n)`` after n steps, so that the first weights are forgotten in short runs too.

    Raises:
        ValueError: a decay outside its range.
    """

    def __init__(self, decay: float = 0.9999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}.")
        super().__init__(use_buffers=False)
        self.decay, self.warmup = decay, warmup

    def decay_after(self, steps: int) -> float:
        """Return the share that the average keeps once it is of so many steps, at least 1."""
        return min(self.decay, (1 + steps) / (10 + steps)) if self.warmup else self.decay

    def _average(self, average: Any, current: Any, steps: Tensor | int) -> None:
        get_ema_multi_avg_fn(self.decay_after(int(steps)))(average, current, steps)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Copy the weights to where the model will be, when fitting."""
        if stage == "fit":
            device = trainer.strategy.root_device
            self._average_model = AveragedModel(_weights_of(pl_module), device, use_buffers=False, multi_avg_fn=self._average)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the average; outside of a fit the average is what has been loaded."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


def _weights_of(module: nn.Module) -> nn.Module:
    """Return modules that hold the weights and buffers of others by the same names, and nothing else.

    What else a model holds (its trainer with loggers and data, what a config builds parts with) cannot be copied, and need not be.
    """
    holder = nn.Module()
    holder._parameters, holder._buffers = dict(module._parameters), dict(module._buffers)
    holder._non_persistent_buffers_set = set(module._non_persistent_buffers_set)
    holder._modules = {name: None if child is None else _weights_of(child) for name, child in module._modules.items()}
    return holder
