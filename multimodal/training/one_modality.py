"""What trainings of one modality share: its name, its parts, and layers that keep their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Self, cast

from lightning.pytorch.cli import OptimizerCallable
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from multimodal.modality import Input, Modality
from multimodal.nn import Encoder
from multimodal.training.encoder_training import EncoderTraining
from multimodal.training.freezing import freeze


class OneModalityTraining(EncoderTraining):
    """Base of the modules that train an encoder and a head on items of one modality.

    Args:
        encoder: what is trained.
        modalities: name -> builds the modality from the encoder's width: one ``multimodal.modality.Input``.
        optimizer: builds the optimizer from parameter groups.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.
        layer_decay: the learning rate of a layer as a share of the next one's, in (0, 1]; None: the same for all.
        compile_encoder: compile the encoder's layers when a fit starts.

    Raises:
        ValueError: not one modality, or one of pretraining.
    """

    def __init__(
        self,
        encoder: Encoder,
        modalities: Mapping[str, Callable[[int], Input]],
        optimizer: OptimizerCallable,
        schedule: Callable[[Optimizer, int], LRScheduler],
        layer_decay: float | None,
        compile_encoder: bool,
    ) -> None:
        super().__init__(encoder, modalities, optimizer, schedule, layer_decay, compile_encoder)
        self._frozen: list[nn.Module] = []
        self._check_modality()

    def _complete(self, freeze_layers: int | Literal["all"], make_scores: Callable[[], Metric]) -> None:
        """Freeze layers and make the scores of each stage: the last thing that a constructor does, when all parts are there."""
        self._frozen = freeze(self, freeze_layers)
        self.scores = nn.ModuleDict({f"{stage}_scores": make_scores() for stage in ("train", "val", "test")})
        self.train()  # which Lightning does not call before the first step

    def _check_modality(self) -> None:
        """Look at what was given as modalities."""
        if len(self.modalities) != 1:
            raise ValueError(f"modalities must be one, {self._demand()}; got {', '.join(self.modalities)}.")
        if isinstance(self.modality, Modality):
            raise ValueError(
                f"modality {self.name!r} is one of pretraining: give multimodal.modality.Input its transform and its embedding."
            )

    def _demand(self) -> str:
        """Return what the one modality is for, as a message says it."""
        return "whose items are read"

    @property
    def name(self) -> str:
        """The modality's name."""
        return next(iter(self.modalities))

    @property
    def modality(self) -> Input:
        """The modality."""
        return cast(Input, self.modalities[self.name])

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all parts but the frozen ones, whose dropout stays off."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self
