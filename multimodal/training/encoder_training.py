"""What every training of an encoder shares: one exact mean as loss, exact scores, checkpoints that say what they are.

Letters in shapes: n tokens, d width, s samples.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from multimodal.batch import Batch
from multimodal.modality import Input
from multimodal.nn import Encoded, Encoder, Packing
from multimodal.nn.plan import AttentionPlan
from multimodal.objectives import EncoderInput, Part, Term
from multimodal.protocols import TokenCounter, Transform
from multimodal.training.checkpoint_contents import KEY, check_fits, check_teachers, close_epoch, describe
from multimodal.training.compilation import compile_layers, release_layers
from multimodal.training.fused_adamw import FusedAdamW
from multimodal.training.optimization import WarmupCosine, optimization, parameter_groups, total_steps, zero_of
from multimodal.training.sharding import is_sharded, shard
from multimodal.training.token_counter import ModalityTokenCounter


def default_optimizer(parameters: Any) -> Optimizer:
    """AdamW with BEiT's weight decay."""
    return FusedAdamW(parameters, lr=1e-3, weight_decay=0.05)


class EncoderTraining(L.LightningModule):
    """Base of the modules that train an encoder.

    The loss of an optimizer step is the weighted mean over *all* its predictions, over terms, ranks and accumulated batches alike: the loss
    of a batch is a sum, and the gradients are divided by the number of predictions once the step is complete. So splitting a batch over
    ranks or accumulating it changes nothing, however unequal the parts are.

    Args:
        encoder: what is trained.
        modalities: name -> builds the modality from the encoder's width.
        optimizer: builds the optimizer from parameter groups.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.
        layer_decay: the learning rate of a layer as a share of the next one's, in (0, 1]; None: the same for all.
        compile_encoder: compile the encoder's layers when a fit starts.

    Raises:
        ValueError: no modalities, one with an expert that the encoder does not have, or one with several views or a ``hiding`` that
            have no effect.
    """

    scores: nn.ModuleDict
    """``<stage>_scores`` -> metric, for the stages train, val and test; made by the class that inherits."""
    hides: ClassVar[bool] = False
    """Whether a modality's ``hiding`` has an effect."""
    reads_views: ClassVar[bool] = False
    """Whether items may have several views in evaluation."""

    def __init__(
        self,
        encoder: Encoder,
        modalities: Mapping[str, Callable[[int], Input]],
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Callable[[Optimizer, int], LRScheduler] = WarmupCosine,
        layer_decay: float | None = None,
        compile_encoder: bool = False,
    ) -> None:
        super().__init__()
        if not modalities:
            raise ValueError("modalities is empty: name at least one.")
        self.encoder = encoder
        self.modalities = nn.ModuleDict({name: build(encoder.dim) for name, build in modalities.items()})
        for name, modality in self.modalities.items():
            if modality.expert >= encoder.num_experts:
                raise ValueError(
                    f"modality {name!r} is of expert {modality.expert}, but the encoder's num_experts is {encoder.num_experts}."
                )
            if modality.hiding is not None and not self.hides:
                raise ValueError(f"modality {name!r} has a hiding, which has no effect in {type(self).__name__}: leave it out.")
            if (views := modality.transform.num_views) > 1 and not self.reads_views:
                raise ValueError(f"modality {name!r} has {views} views in evaluation, of which {type(self).__name__} reads one: set one.")
        parameter_groups(nn.Module(), layer_decay)  # checks it
        self.make_optimizer, self.make_schedule, self.layer_decay = optimizer, schedule, layer_decay
        self.compile_encoder = compile_encoder
        self.losses: dict[str, Tensor] = {}  # of the last training batch, by name
        self._logged_step = 0
        self._predictions: list[Tensor] = []  # weighted number of predictions since the last optimizer step
        self._axes: dict[str, int] = {}  # of the parameters before a strategy flattened them

    @property
    def transforms(self) -> dict[str, Transform]:
        """Modality name -> transform, for the data module."""
        return {name: modality.transform for name, modality in self.modalities.items()}

    @property
    def token_counter(self) -> TokenCounter:
        """Counts the tokens of a sample, for the data module."""
        return ModalityTokenCounter({name: cast(Input, modality) for name, modality in self.modalities.items()})

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Modality name -> fingerprint of the frozen tokenizer that makes its targets; nothing where none does."""
        return {}

    @abstractmethod
    def _terms(self, batch: Batch, stage: str) -> dict[tuple[str, int], Term]:
        """Return (name, number) -> summand of the loss, and update the scores of the stage; nothing for a batch without items."""

    def _unused(self, batch: Batch) -> Iterable[nn.Module]:
        """Return the modules beside the encoder with parameters that a batch may leave without a gradient."""
        return [modality for name, modality in self.modalities.items() if name not in batch.items]

    def configure_model(self) -> None:
        """Cut the model into shards where Lightning's ``ModelParallelStrategy`` runs it.

        Raises:
            ValueError: the strategy is to split single layers, or a callback needs the whole model.
        """
        self._axes = self._axes or {name: parameter.ndim for name, parameter in self.named_parameters()}
        if self.device_mesh is not None and not is_sharded(self):
            if any(isinstance(callback, WeightAveraging) for callback in cast(Any, self.trainer).callbacks):
                raise ValueError(
                    "WeightAveraging copies the whole model, which no process holds under ModelParallelStrategy: leave it out."
                )
            self.fingerprints  # noqa: B018 - of whole weights
            shard(self, self.encoder.blocks, self.device_mesh)

    def on_fit_start(self) -> None:
        """Compile the layers, where wanted."""
        if self.compile_encoder:
            compile_layers(self.encoder)

    def on_fit_end(self) -> None:
        """Give the layers back as they were."""
        release_layers(self.encoder)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say whose checkpoint it is; close an epoch that is done."""
        checkpoint[KEY] = describe(self, self.fingerprints)
        close_epoch(checkpoint["loops"]["fit_loop"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not fit."""
        check_fits(checkpoint, self, self.fingerprints)
        check_teachers(checkpoint, self)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Prepare the items of a batch, on the device where it now lies."""
        return self.prepared(batch, train=self.trainer.training)

    def prepared(self, batch: Batch, train: bool) -> Batch:
        """Return a batch with the items of every modality as they are to be cut into tokens; see ``Input.prepared``."""
        items = {name: cast(Input, self.modalities[name]).prepared(items, train) for name, items in batch.items.items()}
        return replace(batch, items=items)

    def encode(self, parts: Mapping[str, Part], layer: int | None = None, wanted: Tensor | None = None) -> Encoded:
        """Encode tokens, those of all modalities of a sample together.

        Args:
            parts: modality name -> its tokens; at least one.
            layer: index of the layer whose tokens to return, before the final norm; None: the encoder's output.
            wanted: of the tokens of all parts, ``(n,)`` bool, True at those of the encoder's output to return; None: all.
        """
        tokens, sequence, coordinates, expert = self.join(parts)
        if layer is None:
            return self.encoder(tokens, sequence, coordinates, expert, wanted)
        encoded, layers = self.encoder.forward_intermediates(tokens, sequence, coordinates, (layer,), expert)
        return encoded._replace(tokens=layers[0])

    def join(self, parts: Mapping[str, Part]) -> EncoderInput:
        """Put the tokens of all modalities end to end, with their experts where the encoder has several."""
        experts = [cast(int, self.modalities[name].expert) for name in parts] if self.encoder.num_experts > 1 else None
        return EncoderInput.join(parts.values(), experts)

    def _encode_nothing(self) -> Tensor:
        """Return 0; sharded layers run, on no tokens, since all ranks must gather and reduce together."""
        if not is_sharded(self.encoder):
            return torch.zeros((), device=self.device)
        learning = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.modalities.parameters())
        x = torch.zeros(0, self.encoder.dim, device=self.device, requires_grad=learning)
        plan = AttentionPlan(Packing.from_sequence(torch.zeros(0, dtype=torch.int64, device=self.device)))
        for block in self.encoder.blocks:
            x = block(x, plan)
        return x.sum()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the *sum* of the weighted losses, 0 for an empty batch; ``on_before_optimizer_step`` divides the gradients."""
        terms = self._terms(batch, "train")
        total, count = (value.to(self.device) for value in weighted_sums(terms.values()))
        self._predictions.append(count)
        self.losses = {}
        for (name, _), term in terms.items():
            self.losses[name] = self.losses.get(name, 0.0) + term.loss.detach()
        self.log("train/loss", (total / count.clamp(min=1e-9)).detach(), prog_bar=True, batch_size=batch.num_samples)
        return total + self._absent_parameters(batch)

    def _absent_parameters(self, batch: Batch) -> Tensor:
        """Return a zero that depends on the parameters no item has touched: every rank must have a gradient for each."""
        if batch.items:
            return zero_of(self._unused(batch)).to(self.device)
        # the parameters of a sharded layer are whole only while it runs: what it runs on makes their gradients
        parts = [part for name, part in self.encoder.named_children() if name != "blocks"] if is_sharded(self.encoder) else [self.encoder]
        return self._encode_nothing() + zero_of([*parts, *self._unused(batch)]).to(self.device)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Turn the gradients of summed losses into those of the mean over all predictions of the step."""
        count = self.trainer.strategy.reduce(torch.stack(self._predictions).sum(), reduce_op="sum")
        self._predictions.clear()
        scale = self.trainer.world_size * self.trainer.accumulate_grad_batches / count.clamp(min=1e-9)  # both divided already
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        if gradients:  # none are left of a step that is skipped
            torch._foreach_mul_([x.to_local() if isinstance(x, DTensor) else x for x in gradients], scale)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the scores of the steps since the last log."""
        step = self.trainer.global_step
        if step == self._logged_step or step % cast(Any, self.trainer).log_every_n_steps:
            return
        self._logged_step = step
        metric = self._metric("train")
        scores = {f"train/{name}": float(value) for name, value in metric.compute().items()}
        metric.reset()
        for logger in self.loggers:
            logger.log_metrics(scores, step)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch; its random parts are the same in every epoch."""
        self._evaluate(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the whole split."""
        self._log_scores("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch of the test split."""
        self._evaluate(batch, "test")

    def on_test_epoch_end(self) -> None:
        """Log the scores of the whole split."""
        self._log_scores("test")

    def _evaluate(self, batch: Batch, stage: str) -> None:
        if not self._terms(batch, stage) and not batch.items:
            self._encode_nothing()

    def _metric(self, stage: str) -> Metric:
        return cast(Metric, self.scores[f"{stage}_scores"])

    def _log_scores(self, stage: str) -> None:
        metric = self._metric(stage)
        for name, value in metric.compute().items():
            shown = stage == "val" and self._shown(name)
            self.log(f"{stage}/{name}", value, batch_size=1, prog_bar=shown, sync_dist=True)  # equal on all ranks already
        metric.reset()

    def _shown(self, score: str) -> bool:
        """Return whether a score of the validation stands in the progress bar."""
        return True

    def configure_optimizers(self) -> Any:
        """Build optimizer and schedule."""
        groups = parameter_groups(self, self.layer_decay, self.encoder.depth, self._axes)
        return optimization(groups, self.make_optimizer, self.make_schedule, total_steps(self.trainer))


def weighted_sums(terms: Iterable[Term]) -> tuple[Tensor, Tensor]:
    """Return the weighted sum of the losses of all terms, and the weighted number of their predictions; zeros for no terms."""
    terms = list(terms)
    if not terms:
        return torch.zeros(()), torch.zeros(())
    return torch.stack([term.weight * term.loss for term in terms]).sum(), torch.stack([term.weight * term.count for term in terms]).sum()
