"""Probes on labels, before, during and after pretraining."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from multimodal.training.probing import probe
from multimodal.training.sharding import is_sharded

FILE = "probe.csv"
COLUMNS = ("step", "modality", "layer", "method", "labels_per_class", "accuracy", "std", "draws")


class LabelProbe(L.Callback):
    """Read a label from frozen features: at the start of a run (the untrained encoder), every so often, and at the end.

    Features are the mean token of each sample with nothing hidden. Scores go to ``RUN/probe.csv`` and to the loggers as
    ``probe/<modality>/<method>_<labels>``.

    Args:
        modality: whose features to read.
        label: name of the label in the batches.
        labels_per_class: how many labelled items of each class; 0: all of the training split.
        layer: index of the layer to read; None: the encoder's output.
        train_split: where the labelled items come from.
        test_split: what is scored.
        draws: seeded draws of the labelled items; mean and standard deviation are reported.
        every_n_epochs: how often, besides the start and the end; 0: at these only.
    """

    def __init__(
        self,
        modality: str,
        label: str = "label",
        labels_per_class: Sequence[int] = (10, 100),
        layer: int | None = None,
        train_split: str = "train",
        test_split: str = "test",
        draws: int = 5,
        every_n_epochs: int = 0,
    ) -> None:
        self.modality, self.label, self.labels_per_class, self.layer = modality, label, tuple(labels_per_class), layer
        self.train_split, self.test_split, self.draws, self.every_n_epochs = train_split, test_split, draws, every_n_epochs
        self._last_step = -1

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check the modality's name before any work is done.

        Raises:
            ValueError: the model has no such modality.
        """
        names = sorted(cast(Any, pl_module).transforms)
        if self.modality not in names:
            raise ValueError(f"LabelProbe: the model has no modality {self.modality!r}, only {names}.")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Probe the untrained encoder."""
        self._run(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Probe every ``every_n_epochs``."""
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._run(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Probe what was learned."""
        self._run(trainer, pl_module)

    def _run(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        if trainer.is_global_zero or is_sharded(pl_module):  # ranks gather weights together
            load = partial(cast(Any, trainer).datamodule.evaluation_dataloader, whole=True)  # this process alone probes
            train, test = (self._features(pl_module, load(split)) for split in (self.train_split, self.test_split))
        if trainer.is_global_zero:
            results = probe(train, test, self.labels_per_class, self.draws)
            layer = "out" if self.layer is None else self.layer
            rows = [(trainer.global_step, self.modality, layer, r.method, r.labels_per_class, r.mean, r.std, r.draws) for r in results]
            _append(Path(trainer.default_root_dir) / FILE, rows)
            scores = {f"probe/{self.modality}/{r.method}_{r.labels_per_class or 'all'}": r.mean for r in results}
            for logger in trainer.loggers:
                logger.log_metrics(scores, trainer.global_step)
        trainer.strategy.barrier()

    def _features(self, module: L.LightningModule, loader: DataLoader) -> tuple[Tensor, Tensor]:
        training = module.training
        module.eval()
        features, labels = [], []
        for batch in loader:
            if self.modality not in batch.items or self.label not in batch.labels:
                continue
            found = module.features(batch.to(module.device), self.modality, self.layer).float().cpu()
            usable = batch.labels[self.label] >= 0
            usable &= torch.isin(torch.arange(batch.num_samples), batch.items[self.modality].sample)
            features.append(found[usable])
            labels.append(batch.labels[self.label][usable])
        module.train(training)
        if not features:
            raise ValueError(f"LabelProbe: no sample has both modality {self.modality!r} and label {self.label!r}.")
        return torch.cat(features), torch.cat(labels)


def _append(path: Path, rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(COLUMNS)
        writer.writerows(rows)
