"""Random numbers of a training step as a function of where the run stands."""

from __future__ import annotations

import hashlib
import os
import random
from typing import Any

import lightning as L
import numpy as np
import torch


class StepSeed(L.Callback):
    """Seed torch (all devices), NumPy and Python before every training batch from (seed, epoch, batch, rank).

    So dropout and whatever else draws random numbers in a step do not depend on what was drawn before: a resumed run draws as the
    uninterrupted one would have, no state of a generator has to be stored, and validation may draw as it likes.

    Args:
        seed: of the run; None: that of ``seed_everything``, or 0.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed."""
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.seed is None else self.seed
        seed_all(seed, trainer.current_epoch, batch_idx, trainer.global_rank)


def seed_all(*parts: int) -> None:
    """Seed torch, NumPy and Python with a hash of the parts."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "big") >> 1
    torch.manual_seed(number)
    np.random.seed(number % 2**32)
    random.seed(number)
