"""Training of tokenizers, with an eye on the codebook."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from multimodal.batch import Batch, Items
from multimodal.protocols import Renderer, Transform
from multimodal.tokenizers.pretrained import TokenizerLoss, TrainableTokenizer
from multimodal.tokenizers.quantizers.across_ranks import summed
from multimodal.training.checkpoint_contents import KEY, check_fits, check_teachers, close_epoch, describe
from multimodal.training.dry_run import check_tokenizer
from multimodal.training.fused_adamw import FusedAdamW
from multimodal.training.optimization import WarmupCosine, optimization, parameter_groups, total_steps, zero_of
from multimodal.training.scores import CodebookUse

FOLDER = "tokenizer"


def default_optimizer(parameters: Any) -> Optimizer:
    """AdamW without decay: codes are not to shrink."""
    return FusedAdamW(parameters, lr=1e-3, weight_decay=0.0)


class TokenizerTraining(L.LightningModule):
    """Train a tokenizer on one modality; the run's folder gets it as ``tokenizer/`` at the end.

    Logs the loss and its parts and, over the validation split, the share of ids used, their perplexity and the number never used; of a
    tokenizer with several fields the means, and those of each field (``usage_<field>``).

    Args:
        tokenizer: to train.
        transform: bytes of a file -> values.
        name: of the modality, for logs and pictures.
        optimizer: builds the optimizer from parameter groups; one-dimensional parameters are not decayed.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.
        renderer: draws reconstructions; None: no pictures.
        min_usage: warn of a collapse when a smaller share of the ids is used over the validation split.

    Raises:
        ValueError: tokenizer, transform and renderer do not fit each other.
    """

    def __init__(
        self,
        tokenizer: TrainableTokenizer,
        transform: Transform,
        name: str = "item",
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Callable[[Optimizer, int], LRScheduler] = WarmupCosine,
        renderer: Renderer | None = None,
        min_usage: float = 0.05,
    ) -> None:
        super().__init__()
        self.tokenizer, self.transform, self.name, self.renderer, self.min_usage = tokenizer, transform, name, renderer, min_usage
        tokenizer.check_source(transform)
        check_tokenizer(name, tokenizer, transform, renderer)
        self.make_optimizer, self.make_schedule = optimizer, schedule
        uses = {field: CodebookUse(size) for field, size in zip(tokenizer.field_names, tokenizer.vocab_sizes, strict=True)}
        self.use = nn.ModuleDict(uses)
        self.losses: dict[str, Tensor] = {}  # of the last training batch, by modality

    @property
    def fingerprints(self) -> dict[str, str]:
        """Nothing: what is being trained has no ids yet that shards could store."""
        return {}

    @property
    def token_counter(self) -> None:
        """None: a tokenizer has no tokens of an encoder to count, its batches have a fixed number of samples."""
        return None

    @property
    def transforms(self) -> dict[str, Transform]:
        """Modality name -> transform, for the data module."""
        return {self.name: self.transform}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say whose checkpoint it is; close an epoch that is done."""
        checkpoint[KEY] = describe(self, {})
        close_epoch(checkpoint["loops"]["fit_loop"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not fit."""
        check_fits(checkpoint, self, {})
        check_teachers(checkpoint, self)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch; 0 on all processes where one of them has no item, because codes are moved by all together."""
        if bool(summed(torch.tensor(float(self._lacks_items(batch)), device=self.device))):
            self.losses = {}
            return zero_of([self.tokenizer]).to(self.device)
        done = self.global_step / max(total_steps(self.trainer), 1)
        step = self._step(batch.items[self.name], min(done, 1.0))
        self.losses = {self.name: step.loss.detach()}
        self.log("train/loss", step.loss, prog_bar=True, batch_size=batch.num_samples)
        self.log_dict({f"train/{part}": value for part, value in step.parts.items()}, batch_size=batch.num_samples)
        return step.loss

    def _step(self, items: Items, progress: float) -> TokenizerLoss:
        values, *lengths = items.for_tokenizer
        return self.tokenizer.training_loss(values, progress, *lengths)

    def _lacks_items(self, batch: Batch) -> bool:
        return self.name not in batch.items or not len(batch.items[self.name])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch without noise."""
        self._score(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Log the use of the codebook over the split; warn of a collapse."""
        usage = self._log_codebook("val")
        if 0 < usage < self.min_usage and not self.trainer.sanity_checking:
            warnings.warn(
                f"the codebook is collapsing: {usage:.1%} of its ids are used over the validation split (min_usage {self.min_usage:.0%}). "
                "Fewer ids, a lower learning rate or a larger weight on even use may help.",
                stacklevel=2,
            )

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score a batch of the test split."""
        self._score(batch, "test")

    def on_test_epoch_end(self) -> None:
        """Log the use of the codebook over the split."""
        self._log_codebook("test")

    def _score(self, batch: Batch, stage: str) -> None:
        if self._lacks_items(batch):
            return
        step = self._step(batch.items[self.name], 1.0)
        for use, ids in zip(self._uses.values(), step.ids.view(len(step.ids), -1).unbind(1), strict=True):
            use.update(ids)
        losses = {"loss": step.loss, **step.parts}
        self.log_dict({f"{stage}/{part}": value for part, value in losses.items()}, batch_size=batch.num_samples, sync_dist=True)

    @property
    def _uses(self) -> dict[str, CodebookUse]:
        return {field: use for field, use in self.use.items() if isinstance(use, CodebookUse)}

    def _log_codebook(self, stage: str) -> float:
        """Log the use of each field, and return the mean share of ids used."""
        fields = {field: use.compute() for field, use in self._uses.items()}
        for use in self._uses.values():
            use.reset()
        scores = {name: torch.stack([use[name] for use in fields.values()]).mean() for name in next(iter(fields.values()))}
        for name, value in scores.items():
            self.log(f"{stage}/codebook/{name}", value, batch_size=1, prog_bar=stage == "val" and name != "dead_codes", sync_dist=True)
        if len(fields) > 1:
            each = {f"{stage}/codebook/{name}_{field}": value for field, use in fields.items() for name, value in use.items()}
            self.log_dict(each, batch_size=1, sync_dist=True)
        return float(scores["usage"])

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, tuple[list[str], Tensor]]:
        """Return modality name -> keys and ids ``(items, tokens of an item, ...)``.

        Raises:
            ValueError: the items differ in length.
        """
        if self._lacks_items(batch):
            return {}
        items = batch.items[self.name]
        if items.lengths is not None:
            raise ValueError("items of different lengths have no array of ids: `multimodal shards tokenize` stores them beside the data.")
        ids = self.tokenizer.encode(*items.for_tokenizer)
        return {self.name: ([batch.keys[i] for i in items.sample.tolist()], ids.unflatten(0, (len(items), -1)))}

    def on_train_end(self) -> None:
        """Write the tokenizer into the run's folder."""
        if self.trainer.is_global_zero:
            self.tokenizer.save_pretrained(Path(self.trainer.default_root_dir) / FOLDER)

    @torch.no_grad()
    def pictures(self, batch: Batch, count: int) -> dict[str, list[Mapping[str, Tensor]]]:
        """Return modality name -> pictures of the first ``count`` items and of their reconstructions."""
        if self.renderer is None or self._lacks_items(batch):
            return {}
        items = batch.items[self.name]
        drawn = [self._drawn(items, number) for number in range(min(count, len(items)))]
        columns = [name for name in self.renderer.columns if self._says_something(name, drawn)]
        return {self.name: [{name: pictures[name] for name in columns} for pictures in drawn]}

    def _drawn(self, items: Items, number: int) -> Mapping[str, Tensor]:
        """Return the pictures of one item, encoded alone: only so it is known which ids of ragged items are whose."""
        assert self.renderer is not None
        values, *lengths = items.for_tokenizer
        own = values[number] if not lengths else values.split(lengths[0].tolist())[number]
        ids = self.tokenizer.encode(own, lengths[0][number : number + 1]) if lengths else self.tokenizer.encode(own[None])
        return self.renderer.render(self.tokenizer, own, ids, ids, torch.zeros(len(ids), dtype=torch.bool, device=ids.device))

    def _says_something(self, name: str, drawn: list[Mapping[str, Tensor]]) -> bool:
        """Return whether a column is the first, the last, or another picture: with nothing hidden, masked and predicted ones are none."""
        assert self.renderer is not None
        ends = (self.renderer.columns[0], self.renderer.columns[-1])
        return name in ends or all(any(not torch.equal(pictures[name], pictures[end]) for pictures in drawn) for end in ends)

    def configure_optimizers(self) -> Any:
        """Build optimizer and schedule."""
        return optimization(parameter_groups(self.tokenizer), self.make_optimizer, self.make_schedule, total_steps(self.trainer))
