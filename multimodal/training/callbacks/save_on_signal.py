"""A run that is told to end leaves a checkpoint of the step that it was at."""

from __future__ import annotations

import math
import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim import Optimizer

from multimodal.training.checkpoint_contents import close_epoch

SIGNALS = (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM)
LAST = "last.ckpt"


class SaveOnSignal(L.Callback):
    """On SIGTERM, SIGUSR1 or Ctrl-C, save ``last.ckpt`` and end the process with 128 plus the signal's number (143, 138, 130).

    A signal is only noted when it comes. All ranks agree at the end of an optimizer step, or of a validation batch, save once and end; a
    signal to one of them ends all. A checkpoint from the middle of a validation is that of its start, and the run that continues it goes
    on with training. A wait for data is broken off after ``patience_s``, and what training had reached is saved. A second Ctrl-C ends at
    once, without a checkpoint.

    Where Lightning requeues jobs of SLURM, the signal that announces the end of a job is left to it.

    Args:
        patience_s: seconds from a signal until a wait for data is broken off, above 0.

    Raises:
        ValueError: ``patience_s`` is not above 0.
        SystemExit: in training, after a signal.
    """

    def __init__(self, patience_s: float = 5.0) -> None:
        if patience_s <= 0:
            raise ValueError(f"patience_s must be above 0, got {patience_s}.")
        self.patience_s = patience_s
        self.received = 0
        self._before: dict[int, Any] = {}
        self._ended = threading.Event()
        self._process = 0
        self._reminded = self._in_step = self._saved = False
        self._step = self._batches = self._common_batches = 0
        self._loops: dict[str, Any] | None = None

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals: Lightning takes SIGTERM just before."""
        self._install(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals, if there was no sanity check."""
        self._install(trainer)
        self._step, self._loops = trainer.global_step, None

    def _install(self, trainer: L.Trainer) -> None:
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        self.received, self._saved, self._in_step, self._process = 0, False, False, os.getpid()
        self._ended.clear()
        environment = getattr(trainer.strategy, "cluster_environment", None)
        requeue = environment.requeue_signal if isinstance(environment, SLURMEnvironment) and environment.auto_requeue else None
        for number in SIGNALS:
            if number != requeue:
                self._before[number] = signal.signal(number, self._receive)

    def _restore(self) -> None:
        self._ended.set()
        self._common_batches = 0
        while self._before:
            number, handler = self._before.popitem()
            if signal.getsignal(number) == self._receive:  # Lightning may have given it back already
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a data worker, which inherits this handler
            return os._exit(128 + number) if number == signal.SIGTERM else None
        if not self.received:
            self.received = number
            os.write(2, f"{signal.Signals(number).name}: saving a checkpoint at the end of this step.\n".encode())
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # data workers may end of the same signal: no error now
            threading.Thread(target=self._remind, args=(threading.get_ident(),), daemon=True).start()
        elif self._reminded:
            self._reminded = False
            if _waits_for_data(frame):
                raise SystemExit(128 + self.received)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    def _remind(self, main_thread: int) -> None:
        """Interrupt the main thread from time to time: nothing but a signal wakes it while it waits."""
        while not self._ended.wait(self.patience_s):
            self._reminded = True
            signal.pthread_kill(main_thread, self.received)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Note that weights are about to change."""
        self._in_step = True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End here if a rank was told to, unless gradients are still being accumulated."""
        if trainer.global_step != self._step:
            self._step, self._in_step = trainer.global_step, False
            self._loops = trainer.fit_loop.state_dict()  # a batch that is begun later is begun again
            self._end_if_told(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note where training stands: the scores of a validation are not in a checkpoint, so it is begun again."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        counts = trainer.num_val_batches
        own = torch.tensor(float(sum(counts) if isinstance(counts, list) else counts), device=trainer.strategy.root_device)
        fewest = float(trainer.strategy.reduce(own, reduce_op="min"))
        self._common_batches, self._batches = (0 if math.isinf(fewest) else int(fewest)), 0  # ranks agree over batches that all have
        self._loops = trainer.fit_loop.state_dict()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """End here if a rank was told to."""
        self._batches += 1
        if not trainer.sanity_checking and self._batches <= self._common_batches:
            self._end_if_told(trainer)

    def _end_if_told(self, trainer: L.Trainer) -> None:
        agreed = self.received
        if trainer.world_size > 1:
            number = torch.tensor(agreed, device=trainer.strategy.root_device)
            agreed = int(trainer.strategy.reduce(number, reduce_op="max"))
        if agreed:  # a signal that came during the agreement is found at the next one
            self.received = agreed
            self._save(trainer)
            trainer.strategy.barrier("SaveOnSignal")
            raise SystemExit(128 + self.received)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save what a broken-off wait left to save; give the signals back."""
        if self.received and not self._saved and not self._in_step and not isinstance(exception, KeyboardInterrupt):
            self._save(trainer)
        self._restore()
        if self._saved and not isinstance(exception, SystemExit):
            raise SystemExit(128 + self.received) from exception  # a data worker or another rank ended first

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the signals back."""
        self._restore()

    def _save(self, trainer: L.Trainer) -> None:
        """Write the checkpoint without waiting for other ranks, which may have ended."""
        keeper = next((callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)), None)
        folder = Path(keeper.dirpath) if keeper and keeper.dirpath else Path(trainer.default_root_dir) / "checkpoints"
        if keeper:
            keeper.last_model_path = str(folder / LAST)
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(False)
        if self._loops is not None:  # else no step was taken
            close_epoch(self._loops)
            checkpoint["loops"]["fit_loop"] = self._loops
        trainer.strategy.save_checkpoint(checkpoint, folder / LAST)
        self._saved = True


def _waits_for_data(frame: FrameType | None) -> bool:
    """Return whether the code that a signal interrupted was called by Lightning to get the next batch."""
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), _DataFetcher):
            return True
        frame = frame.f_back
    return False
