"""What trainings share that tell a class for each place of an item: a transform that reads labels, checks of these, files of guesses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from multimodal.batch import Batch, Items
from multimodal.datamodules.shards.keys import clean_key
from multimodal.protocols import LabelledTransform
from multimodal.training.callbacks.predictions import FOLDER
from multimodal.training.dry_run import check_input
from multimodal.training.one_modality import OneModalityTraining

NO_CLASS = -1
EARLY = 50
"""Training batches after which labels are missed; an epoch may have fewer."""


class PlaceLabelling(OneModalityTraining):
    """Base of the modules that train an encoder and a head to tell the class of each place of an item: one modality, one kind of label.

    Args:
        encoder: what is trained.
        modalities: name -> builds the modality from the encoder's width: one, whose transform reads labels.
        optimizer: builds the optimizer from parameter groups.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.
        layer_decay: the learning rate of a layer as a share of the next one's, in (0, 1]; None: the same for all.
        compile_encoder: compile the encoder's layers when a fit starts.

    Raises:
        ValueError: not one modality, one of pretraining, or one whose transform reads no labels or does not fit its embedding; in training,
            a class that the head has no place for, or no label in the first 50 batches, or in a whole epoch.
    """

    place: ClassVar[str]
    """What has a class, in messages."""
    kind: ClassVar[str]
    """What the labels of an item are, in messages."""
    reader: ClassVar[str]
    """A transform that reads such labels."""
    head: nn.Module
    _labelled = 0
    """Places of this epoch with a class."""
    _batches = 0
    """Batches of the first epoch."""
    _written = 0
    """Items of a prediction."""

    def _check_modality(self) -> None:
        """Look at the transform too, and try the embedding on its example."""
        super()._check_modality()
        transform = self.modality.transform
        if not isinstance(transform, LabelledTransform):
            raise ValueError(
                f"the transform of modality {self.name!r}, a {type(transform).__name__}, reads no {self.kind}s: use one that does, such as "
                f"{self.reader}."
            )
        check_input(self.name, self.modality, self.encoder.dim)

    @property
    def num_classes(self) -> int:
        """Number of classes that the head tells apart."""
        return cast(int, self.head.num_classes)

    def _demand(self) -> str:
        return f"whose {self.place}s are to be told apart"

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Refuse classes that the head has no place for, before the device sees them.

        Raises:
            ValueError: a label is not -1 or one of the head's classes, or there are no labels at all.
        """
        for items in batch.items.values():
            if items.labels is None:
                raise ValueError(f"the items of modality {self.name!r} bring no labels: its transform must make them.")
            if self.training:
                self._labelled += int((items.labels != NO_CLASS).sum())
            most, places = _largest(items, items.labels), self.num_classes
            wrong = (most >= places).nonzero()[:, 0].tolist()
            if wrong:
                key = batch.keys[int(items.sample[wrong[0]])]
                raise ValueError(
                    f"the {self.kind} of sample {key!r} has class {int(most[wrong[0]])}, but the head's num_classes is {places}: "
                    f"allowed are 0 to {places - 1}, and what the transform's {self.kind}s ignore."
                )
        return batch

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log scores; after the first batches, refuse to go on without labels.

        Raises:
            ValueError: no place had a label so far.
        """
        super().on_train_batch_end(outputs, batch, batch_idx)
        self._batches += 1
        if self._batches == EARLY:
            self._check_labelled(f"the first {EARLY} training batches")

    def on_train_epoch_end(self) -> None:
        """Refuse to go on without labels.

        Raises:
            ValueError: no place of the epoch had a label.
        """
        self._check_labelled("the epoch")
        self._labelled, self._batches = 0, EARLY  # what the first batches had to show, the epoch has shown

    def _check_labelled(self, where: str) -> None:
        count = self.trainer.strategy.reduce(torch.tensor(float(self._labelled), device=self.device), reduce_op="sum")
        if not count:
            fields = ", ".join(cast(LabelledTransform, self.modality.transform).label_extensions)
            raise ValueError(
                f"no {self.place} of {where} has a label: do the shards of the training split hold {self.kind}s in a field {fields}?"
            )

    def _files(self, batch: Batch, items: Items, extension: str) -> Iterator[Path]:
        """Yield where to write what is guessed of each item, ``RUN/predictions/<modality>/<key>.<extension>``, and count it."""
        folder = Path(self.trainer.default_root_dir) / FOLDER / self.name
        for number in items.sample.tolist():
            yield folder / f"{clean_key(batch.keys[number])}.{extension}"
        self._written += len(items)

    def on_predict_end(self) -> None:
        """Say what was written."""
        print(f"{Path(self.trainer.default_root_dir) / FOLDER / self.name}: {self._written} {self.kind}s")
        self._written = 0


def _largest(items: Items, labels: Tensor) -> Tensor:
    """Return the largest label of each item, ``(items,)``."""
    if items.lengths is None:
        return labels.flatten(1).amax(1)
    if len(labels) != int(items.lengths.sum()):
        raise ValueError(f"items of {int(items.lengths.sum())} places bring {len(labels)} labels: their transform must make one for each.")
    item = torch.repeat_interleave(items.lengths, output_size=len(labels))
    return torch.full((len(items),), NO_CLASS).scatter_reduce(0, item, labels.long(), "amax")
