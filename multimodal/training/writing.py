"""What trainings that learn to write a text about an item share: the texts, which ride in the batch beside the items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from multimodal.batch import Batch, Items
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.protocols import Tokenizer, Transform
from multimodal.training.dry_run import check_input
from multimodal.training.one_modality import OneModalityTraining


class WritingTraining(OneModalityTraining):
    """Base of the modules that learn, from texts beside the items of one modality, to write such a text about an item.

    Args:
        encoder: what is trained.
        modalities: name -> builds the modality from the encoder's width: one ``multimodal.modality.Input``, about which is written.
        texts: reads the texts; it has a tokenizer of its own, which also decodes.
        optimizer: builds the optimizer from parameter groups.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.
        layer_decay: the learning rate of a layer as a share of the next one's, in (0, 1]; None: the same for all.
        compile_encoder: compile the encoder's layers when a fit starts.

    Raises:
        ValueError: not one modality, one of pretraining, one with the name of the texts, a transform of texts without such a tokenizer, or
            parts that do not fit each other; in training, no text in an epoch.
    """

    kind: ClassVar[str]
    """What a text is, in messages, and the name of the texts in a batch."""

    def __init__(
        self,
        encoder: Encoder,
        modalities: Mapping[str, Callable[[int], Input]],
        texts: Transform,
        optimizer: OptimizerCallable,
        schedule: Callable[[Optimizer, int], LRScheduler],
        layer_decay: float | None,
        compile_encoder: bool,
    ) -> None:
        super().__init__(encoder, modalities, optimizer, schedule, layer_decay, compile_encoder)
        self.texts = texts
        self._learned = 0  # texts of this epoch
        if self.name == self.kind:
            raise ValueError(f"modalities must be one, {self._demand()}; got {self.name}.")
        tokenizer = getattr(texts, "tokenizer", None)
        if not isinstance(tokenizer, Tokenizer) or len(tokenizer.vocab_sizes) != 1 or not callable(getattr(tokenizer, "decode", None)):
            raise ValueError(
                f"{self.kind}, a {type(texts).__name__}, has no tokenizer of one id each that decodes: use a transform that has, "
                "such as multimodal.tokenizers.text.TextTransform."
            )
        check_input(self.name, self.modality, encoder.dim)

    def _demand(self) -> str:
        return f"of another name than {self.kind!r}"

    @property
    def tokenizer(self) -> Any:
        """What makes ids of texts, and texts of ids."""
        return cast(Any, self.texts).tokenizer

    @property
    def transforms(self) -> dict[str, Transform]:
        """Those of the modality and of the texts, for the data module."""
        return {**super().transforms, self.kind: self.texts}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of the texts' tokenizer."""
        return {self.kind: self.tokenizer.fingerprint()}

    def prepared(self, batch: Batch, train: bool) -> Batch:
        """Return a batch with prepared items of the modality; texts stay as they are."""
        seen = super().prepared(self._without_texts(batch), train)
        return replace(batch, items={**batch.items, **seen.items})

    def _without_texts(self, batch: Batch) -> Batch:
        return replace(batch, items={name: items for name, items in batch.items.items() if name != self.kind})

    def _absent_parameters(self, batch: Batch) -> Tensor:
        return super()._absent_parameters(self._without_texts(batch))

    def _evaluate(self, batch: Batch, stage: str) -> None:
        super()._evaluate(self._without_texts(batch) if self.name not in batch.items else batch, stage)

    def on_train_epoch_end(self) -> None:
        """Refuse to go on without texts.

        Raises:
            ValueError: no sample of the epoch had one.
        """
        count = self.trainer.strategy.reduce(torch.tensor(float(self._learned), device=self.device), reduce_op="sum")
        self._learned = 0
        if not count:
            fields = ", ".join(self.texts.extensions)
            raise ValueError(f"no sample of the epoch has a {self.kind}: do the shards of the training split hold a field {fields}?")


def ids_of(items: Items) -> list[Tensor]:
    """Return the ids of each text."""
    return list(items.values) if items.lengths is None else list(items.values.split(items.lengths.tolist()))
