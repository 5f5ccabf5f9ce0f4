"""Keep NaN and infinity out of the weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

MOST_KEYS = 8


class _Part(NamedTuple):
    """One batch of an optimizer step: the keys of its samples, its loss, and its losses by modality."""

    keys: tuple[str, ...]
    loss: Tensor
    losses: Mapping[str, Tensor]


class FiniteGuard(L.Callback):
    """Skip optimizer steps whose loss or gradients are not finite, and stop when too many follow each other.

    A skipped step leaves weights, the optimizer's state and averaged weights (``WeightAveraging``) as they are; the learning-rate schedule
    moves on. All ranks skip together. Skipped steps are counted, in the logs as ``train/skipped_steps`` from the first one on, and the
    first is warned of. With float16 and a ``GradScaler``, overflowing gradients of a finite loss are the scaler's to skip while it can
    lower its scale to 1; they are not counted.

    It costs one norm of all gradients and one wait for the device each step.

    Args:
        max_consecutive: steps in a row that may be skipped; one more ends the run. 0: the first ends it.

    Raises:
        ValueError: ``max_consecutive`` is negative; in training, too many steps in a row: the message names the step, the losses that
            were not finite and the samples.
    """

    def __init__(self, max_consecutive: int = 10) -> None:
        if max_consecutive < 0:
            raise ValueError(f"max_consecutive must be at least 0, got {max_consecutive}.")
        self.max_consecutive = max_consecutive
        self.skipped, self.in_a_row = 0, 0
        self._skipped_step = -1
        self._keys: tuple[str, ...] = ()
        self._parts: list[_Part] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, for a checkpoint."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped, self.in_a_row = state_dict["skipped"], state_dict["in_a_row"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep averaged weights from moving at skipped steps."""
        self._parts.clear()
        for callback in cast(Any, trainer).callbacks:
            if isinstance(callback, WeightAveraging) and "should_update" not in vars(callback):
                callback.should_update = partial(self._should_average, callback.should_update)  # type: ignore[method-assign]

    def _should_average(self, decide: Callable[..., bool], step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return (step_idx is None or step_idx != self._skipped_step) and decide(step_idx=step_idx, epoch_idx=epoch_idx)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the keys of the batch."""
        self._keys = tuple(getattr(batch, "keys", ()))

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Keep the loss, on its device."""
        self._parts.append(_Part(self._keys, loss.detach(), getattr(pl_module, "losses", {})))

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Skip the step if it has to be.

        The model divides the summed gradients after this; by a number above 0, so what is finite stays so.
        """
        parts, self._parts = self._parts, []
        bad_loss, bad_gradients = _agree(trainer, optimizer, parts)
        if not (bad_loss or bad_gradients):
            self.in_a_row = 0
            return
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and not bad_loss and scaler.get_scale() >= 1:
            return
        self._count(trainer, _describe(trainer, parts))
        if scaler is None:
            optimizer.zero_grad(set_to_none=True)  # an optimizer passes over parameters without gradients: nothing decays or moves
        elif not bad_gradients:
            _make_scaler_skip(optimizer)

    def _count(self, trainer: L.Trainer, found: str) -> None:
        self.skipped, self.in_a_row, self._skipped_step = self.skipped + 1, self.in_a_row + 1, trainer.global_step
        if self.in_a_row > self.max_consecutive:
            raise ValueError(
                f"step {trainer.global_step}: {found}. {self.in_a_row} steps in a row were not finite (max_consecutive is "
                f"{self.max_consecutive}): try a lower learning rate, gradient_clip_val, or look at these samples."
            )
        if self.skipped == 1:
            warnings.warn(f"step {trainer.global_step} is skipped, and so will others be: {found}.", stacklevel=2)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the count."""
        if self.skipped:
            pl_module.log("train/skipped_steps", float(self.skipped), batch_size=1)


def _agree(trainer: L.Trainer, optimizer: Optimizer, parts: list[_Part]) -> tuple[bool, bool]:
    """Return whether any rank has a loss, and any a gradient, that is not finite."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm  # of sharded gradients
    losses = torch.stack([part.loss for part in parts]) if parts else norm.new_zeros(1)
    bad = torch.stack([~losses.isfinite().all(), ~norm.to(losses.device).isfinite()]).float()
    bad_loss, bad_gradients = trainer.strategy.reduce(bad, reduce_op="sum").tolist()
    return bad_loss > 0, bad_gradients > 0


def _describe(trainer: L.Trainer, parts: list[_Part]) -> str:
    """Return which losses are not finite and of which samples, over all ranks, which come here together."""
    bad = [part for part in parts if not part.loss.isfinite()]
    found = {f"the loss of {name!r} is {float(x)}": 0 for part in bad for name, x in part.losses.items() if not x.isfinite()}
    keys = [key for part in bad for key in part.keys]
    if trainer.world_size > 1:
        gathered: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, (found, keys))
        found = {text: 0 for texts, _ in gathered for text in texts}
        keys = [key for _, more in gathered for key in more]
    if not found:
        found = {"the loss is not finite": 0} if bad else {"gradients are not finite, though the loss is": 0}
    keys = keys or [key for part in parts for key in part.keys]
    more = f" and {len(keys) - MOST_KEYS} more" if len(keys) > MOST_KEYS else ""
    return f"{', '.join(found)}; samples {', '.join(keys[:MOST_KEYS])}{more}" if keys else ", ".join(found)


def _make_scaler_skip(optimizer: Optimizer) -> None:
    """Let a ``GradScaler`` skip a step with finite gradients, whether it looks at them in the step (fused optimizers) or has already."""
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        next(p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None).fill_(torch.nan)
    else:
        optimizer.zero_grad(set_to_none=True)
