"""Probes on labels, before, during and after pretraining."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from multimodal.atomic import atomic_file
from multimodal.batch import Batch
from multimodal.modality import Input
from multimodal.training.layer_features import OUTPUT, InputTokens, Layer, Layers, chosen_layers, encode_layers, vectors_of
from multimodal.training.probing import BEST, ProbeOptions, ProbeResult, probe_layers
from multimodal.training.sharding import is_sharded

FILE = "probe.csv"
KEY = ("step", "modality", "layer", "method", "labels_per_class")
COLUMNS = (*KEY, "accuracy", "std", "draws", "held_out", "chosen", "majority", "test_items")


class LabelProbe(L.Callback):
    """Read a label from frozen features: at the start of a run (the untrained encoder), every so often, and at the end.

    Features are the mean token of each sample with nothing hidden, of one layer or of several in one pass over the data; k, the decay and,
    of several, the best layer are chosen on labelled items that are held out (``multimodal.training.probing``). Scores go to
    ``RUN/probe.csv``, and to the loggers as ``probe/<modality>/<method>_<labels>``, of several layers that of the best one. A run that is
    continued goes on with its rows: what is probed again replaces the row that was there.

    Args:
        modality: whose features to read.
        label: name of the label in the batches.
        labels_per_class: how many labelled items of each class; 0: all of the training split.
        layers: numbers of the layers to read, from 0, negative ones from the end, or "out" for the encoder's output; "all"; None: the
            output alone.
        train_split: where the labelled items come from.
        test_split: what is scored.
        draws: seeded draws of the labelled items; mean and standard deviation are reported.
        every_n_epochs: how often, besides the start and the end; 0: at these only.

    Raises:
        ValueError: a number outside its range; when a run starts: no such modality or layer.
    """

    def __init__(
        self,
        modality: str,
        label: str = "label",
        labels_per_class: Sequence[int] = (10, 100),
        layers: Layers | None = None,
        train_split: str = "train",
        test_split: str = "test",
        draws: int = 5,
        every_n_epochs: int = 0,
    ) -> None:
        self.modality, self.label = modality, label
        self.layers: Layers = [OUTPUT] if layers is None else layers
        self.options = ProbeOptions(tuple(labels_per_class), draws)
        self.train_split, self.test_split, self.every_n_epochs = train_split, test_split, every_n_epochs
        self._last_step = -1

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check names before any work is done.

        Raises:
            ValueError: the model has no such modality or layer.
        """
        names = sorted(cast(Any, pl_module).transforms)
        if self.modality not in names:
            raise ValueError(f"LabelProbe: the model has no modality {self.modality!r}, only {names}.")
        chosen_layers(cast(Any, pl_module).encoder, self.layers)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Probe the untrained encoder; one that goes on was probed at its start."""
        if trainer.global_step == 0:
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
            results = probe_layers(train[0], train[1], test[0], test[1], self.options)
            _write(Path(trainer.default_root_dir) / FILE, [self._row(trainer.global_step, result) for result in results])
            shown = [result for result in results if result.layer == BEST or len(train[0]) == 1]
            scores = {f"probe/{self.modality}/{r.method}_{r.labels_per_class or 'all'}": r.mean for r in shown}
            for logger in trainer.loggers:
                logger.log_metrics(scores, trainer.global_step)
        trainer.strategy.barrier()

    def _row(self, step: int, result: ProbeResult) -> dict[str, str]:
        score = (result.mean, result.std, result.draws, result.held_out, " ".join(map(str, result.chosen)))
        values = (step, self.modality, result.layer, result.method, result.labels_per_class, *score, result.majority, result.test_items)
        return {name: str(value) for name, value in zip(COLUMNS, values, strict=True)}

    def _features(self, module: L.LightningModule, loader: DataLoader) -> tuple[dict[Layer, Tensor], Tensor]:
        """Return layer -> features, and the labels, of all samples that have both."""
        training = module.training
        module.eval()
        layers = chosen_layers(cast(Any, module).encoder, self.layers)
        features: dict[Layer, list[Tensor]] = {layer: [] for layer in layers}
        labels = []
        for batch in loader:
            if self.modality not in batch.items or self.label not in batch.labels:
                continue
            usable = batch.labels[self.label] >= 0
            usable &= torch.isin(torch.arange(batch.num_samples), batch.items[self.modality].sample)
            for layer, found in self._vectors(module, cast(Any, module).prepared(batch.to(module.device), train=False), layers).items():
                features[layer].append(found.float().cpu()[usable])
            labels.append(batch.labels[self.label][usable])
        module.train(training)
        if not labels:
            raise ValueError(f"LabelProbe: no sample has both modality {self.modality!r} and label {self.label!r}.")
        return {layer: torch.cat(parts) for layer, parts in features.items()}, torch.cat(labels)

    @torch.no_grad()
    def _vectors(self, module: L.LightningModule, batch: Batch, layers: Sequence[Layer]) -> dict[Layer, Tensor]:
        if is_sharded(module):  # its weights are gathered for as long as one of its own methods runs
            return {layer: cast(Any, module).features(batch, self.modality, None if layer == OUTPUT else layer) for layer in layers}
        modality = cast(Input, cast(Any, module).modalities[self.modality])
        vectors, sequence, coordinates = modality.plain_tokens(batch.items[self.modality])
        part = InputTokens(vectors, sequence, coordinates, modality.expert)
        encoded = encode_layers(cast(Any, module).encoder, [part], layers)
        return {layer: vectors_of(encoded[layer], part.sequence, batch.num_samples) for layer in layers}


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    """Add rows; those of a run that was continued from before them replace their first version."""
    there = list(csv.DictReader(io.StringIO(path.read_text()))) if path.exists() else []
    new = {tuple(row[name] for name in KEY) for row in rows}
    kept = [row for row in there if tuple(row.get(name) for name in KEY) not in new]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows([*kept, *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
