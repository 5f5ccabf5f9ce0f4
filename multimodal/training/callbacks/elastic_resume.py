"""Going on with another number of processes."""

from __future__ import annotations

from typing import Any

import lightning as L


class ElasticResume(L.Callback):
    """Let the trainer count the steps of a resumed epoch as its loader does.

    A run that goes on with another number of ranks or another batch size has cut the rest of its epoch anew: the next step has another
    number than in the run that wrote the checkpoint. Loaders tell by ``resumed_step``; others are left alone.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the number of the next step of the epoch."""
        loader: Any = trainer.train_dataloader
        step = getattr(loader, "resumed_step", None)
        if step is None:
            return
        progress = trainer.fit_loop.epoch_loop.batch_progress.current
        shift = step - progress.ready
        for count in ("ready", "started", "processed", "completed"):  # kept apart: Lightning reads from them when it was stopped
            setattr(progress, count, getattr(progress, count) + shift)
