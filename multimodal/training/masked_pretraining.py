"""Pretraining: predict what was hidden, in every modality at once.

Letters in shapes: n tokens, d width, s samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from multimodal.batch import Batch
from multimodal.modality import Modality
from multimodal.nn import Encoder, pool_mean
from multimodal.objectives import EncodedView, MaskedTokens, Objective, Term
from multimodal.protocols import TokenCounter, Transform
from multimodal.training.checkpoint_contents import KEY, check_fits, close_epoch, describe
from multimodal.training.dry_run import check_modality
from multimodal.training.optimization import WarmupCosine, optimization, total_steps, zero_of
from multimodal.training.scores import MaskedScores
from multimodal.training.token_counter import ModalityTokenCounter


def default_optimizer(parameters: Any) -> Optimizer:
    """AdamW with BEiT's weight decay."""
    return AdamW(parameters, lr=1e-3, weight_decay=0.05)


class MaskedPretraining(L.LightningModule):
    """One encoder for all modalities, trained to predict hidden tokens.

    The loss of an optimizer step is the weighted mean over *all* its predictions, over modalities, ranks and accumulated batches alike:
    the loss of a batch is a sum, and the gradients are divided by the number of predictions once the step is complete. So splitting a
    batch over ranks or accumulating it changes nothing, however unequal the parts are.

    Args:
        encoder: the shared encoder.
        modalities: name -> builds the modality from the encoder's width. Names are free; configs use those of the folders.
        objectives: summands of the loss; None: masked tokens alone.
        optimizer: builds the optimizer from parameter groups; one-dimensional parameters are not decayed.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.

    Raises:
        ValueError: no modalities, or parts of one that do not fit each other.
    """

    def __init__(
        self,
        encoder: Encoder,
        modalities: dict[str, Callable[[int], Modality]],
        objectives: list[Objective] | None = None,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Callable[[Optimizer, int], LRScheduler] = WarmupCosine,
    ) -> None:
        super().__init__()
        if not modalities:
            raise ValueError("modalities is empty: name at least one.")
        self.encoder = encoder
        self.modalities = nn.ModuleDict({name: build(encoder.dim) for name, build in modalities.items()})
        for name, modality in self.modalities.items():
            check_modality(name, cast(Modality, modality))
        self.objectives: Sequence[Objective] = objectives or [MaskedTokens()]
        self.make_optimizer, self.make_schedule = optimizer, schedule
        self.scores = nn.ModuleDict({f"{stage}_scores": MaskedScores(self._fields()) for stage in ("train", "val", "test")})
        self.losses: dict[str, Tensor] = {}  # of the last training batch, by modality
        self._logged_step = 0
        self._predictions: list[Tensor] = []  # weighted number of predictions since the last optimizer step

    @property
    def transforms(self) -> dict[str, Transform]:
        """Modality name -> transform, for the data module."""
        return {name: modality.transform for name, modality in self.modalities.items()}

    @property
    def token_counter(self) -> TokenCounter:
        """Counts the tokens of a sample, for the data module."""
        return ModalityTokenCounter({name: cast(Modality, modality) for name, modality in self.modalities.items()})

    def _fields(self) -> dict[str, tuple[str, ...]]:
        return {name: modality.tokenizer.field_names for name, modality in self.modalities.items()}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Modality name -> fingerprint of its tokenizer, which is frozen."""
        return {name: modality.tokenizer.fingerprint() for name, modality in self.modalities.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say whose checkpoint it is; close an epoch that is done."""
        checkpoint[KEY] = describe(self, self.fingerprints)
        close_epoch(checkpoint["loops"]["fit_loop"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not fit."""
        check_fits(checkpoint, self, self.fingerprints)

    def forward(self, batch: Batch) -> dict[str, EncodedView]:
        """Hide tokens and encode: modality name -> what was hidden and what the encoder made of it; nothing for an empty batch."""
        if not batch.items:
            return {}
        modalities = {name: cast(Modality, self.modalities[name]) for name in batch.items}
        views = {name: modality.masked_view(batch.items[name]) for name, modality in modalities.items()}
        vectors = [modalities[name].embed(view.tokens, view.shown_as_mask) for name, view in views.items()]
        sequence = torch.cat([view.sample for view in views.values()])
        coordinates = _join_coordinates([view.tokens.coordinates for view in views.values()])
        hidden = self.encoder(torch.cat(vectors), sequence, coordinates).tokens.split([len(x) for x in vectors])
        return {name: EncodedView(modalities[name], view, x) for (name, view), x in zip(views.items(), hidden, strict=True)}

    @torch.no_grad()
    def features(self, batch: Batch, name: str, layer: int | None = None) -> Tensor:
        """Return ``(s, d)``, the mean token of one modality in each sample, with nothing hidden.

        Args:
            batch: samples without the modality give zeros; so does a batch without it.
            name: of the modality.
            layer: index of the layer to read, before the final norm; None: the encoder's output.
        """
        if name not in batch.items:
            return torch.zeros(batch.num_samples, self.encoder.dim, device=self.device)
        tokens, sequence, coordinates = self.modalities[name].plain_tokens(batch.items[name])
        encoded, layers = self.encoder.forward_intermediates(tokens, sequence, coordinates, () if layer is None else (layer,))
        return pool_mean(layers[0] if layers else encoded.tokens, sequence, batch.num_samples)

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

    def _terms(self, batch: Batch, stage: str) -> dict[tuple[str, int], Term]:
        encoded = self(batch)
        terms = {(name, i): goal(view) for name, view in encoded.items() for i, goal in enumerate(self.objectives)}
        for (name, _), term in terms.items():
            self.scores[f"{stage}_scores"].update(name, term)
        return terms

    def _absent_parameters(self, batch: Batch) -> Tensor:
        """Return a zero that depends on the parameters no item has touched: every rank must have a gradient for each."""
        absent = [modality for name, modality in self.modalities.items() if name not in batch.items]
        return zero_of(absent if batch.items else [self.encoder, *absent]).to(self.device)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Turn the gradients of summed losses into those of the mean over all predictions of the step."""
        count = self.trainer.strategy.reduce(torch.stack(self._predictions).sum(), reduce_op="sum")
        self._predictions.clear()
        scale = self.trainer.world_size * self.trainer.accumulate_grad_batches / count.clamp(min=1e-9)  # both divided already
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        if gradients:  # none are left of a step that is skipped
            torch._foreach_mul_(gradients, scale)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the scores of the steps since the last log."""
        step = self.trainer.global_step
        if step == self._logged_step or step % cast(Any, self.trainer).log_every_n_steps:
            return
        self._logged_step = step
        scores = {f"train/{name}": float(value) for name, value in self.scores["train_scores"].compute().items()}
        self.scores["train_scores"].reset()
        for logger in self.loggers:
            logger.log_metrics(scores, step)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch; the masks are the same in every epoch."""
        self._terms(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Log loss and accuracy over the whole split."""
        self._log_scores("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch of the test split."""
        self._terms(batch, "test")

    def on_test_epoch_end(self) -> None:
        """Log loss and accuracy over the whole split."""
        self._log_scores("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, tuple[list[str], Tensor]]:
        """Return modality name -> keys and features ``(samples with it, d)``."""
        present = {name: items.sample.unique() for name, items in batch.items.items()}
        return {name: ([batch.keys[i] for i in index.tolist()], self.features(batch, name)[index]) for name, index in present.items()}

    @torch.no_grad()
    def pictures(self, batch: Batch, count: int) -> dict[str, list[Mapping[str, Tensor]]]:
        """Return modality name -> pictures of the first ``count`` items: as they are, as shown, and as predicted."""
        drawn = {}
        for name, encoded in self(batch).items():
            renderer, view, items = encoded.modality.renderer, encoded.view, batch.items[name]
            if renderer is None:
                continue
            guesses = view.ids.clone()
            guesses[view.masked] = encoded.modality.head.predict(encoded.hidden[view.masked], view.ids[view.masked]).ids
            lengths = view.tokens.lengths.tolist()
            values = items.values if items.lengths is None else items.values.split(items.lengths.tolist())
            parts = zip(values, view.ids.split(lengths), guesses.split(lengths), view.masked.split(lengths), strict=True)
            drawn[name] = [renderer.render(encoded.modality.tokenizer, *part) for part in islice(parts, count)]
        return drawn

    def _log_scores(self, stage: str) -> None:
        scores = self.scores[f"{stage}_scores"]
        for name, value in scores.compute().items():
            in_bar = stage == "val" and name.removeprefix("accuracy/") in self.modalities
            self.log(f"{stage}/{name}", value, batch_size=1, prog_bar=in_bar, sync_dist=True)  # equal on all ranks already
        scores.reset()

    def configure_optimizers(self) -> Any:
        """Build optimizer and schedule."""
        return optimization(self, self.make_optimizer, self.make_schedule, total_steps(self.trainer))


def _join_coordinates(coordinates: Sequence[Tensor]) -> Tensor:
    """Join coordinates of different numbers of axes; missing ones are 0."""
    axes = max(x.shape[1] for x in coordinates)
    return torch.cat([F.pad(x, (0, axes - x.shape[1])) for x in coordinates])


def weighted_sums(terms: Iterable[Term]) -> tuple[Tensor, Tensor]:
    """Return the weighted sum of the losses of all terms, and the weighted number of their predictions; zeros for no terms."""
    terms = list(terms)
    if not terms:
        return torch.zeros(()), torch.zeros(())
    return torch.stack([term.weight * term.loss for term in terms]).sum(), torch.stack([term.weight * term.count for term in terms]).sum()
