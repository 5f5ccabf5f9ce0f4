"""A linear classifier on each layer of a frozen encoder, all trained in one pass over the data.

Letters in shapes: s samples, w width of a vector, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from multimodal.batch import Batch
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.objectives import Term
from multimodal.training.dry_run import check_input
from multimodal.training.encoder_training import EncoderTraining
from multimodal.training.fused_adamw import FusedAdamW
from multimodal.training.layer_features import OUTPUT, InputTokens, Layers, VectorOf, chosen_layers, encode_layers, vector_width, vectors_of
from multimodal.training.optimization import WarmupCosine
from multimodal.training.scores import ClassScores

LABEL = "label"
NO_LABEL = -1
UNKNOWN = -1


def probe_optimizer(parameters: Any) -> Optimizer:
    """AdamW as BEiT's linear probe has it."""
    return FusedAdamW(parameters, lr=4e-3, weight_decay=1e-4)


def probe_schedule(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """Cosine to 0, without warm-up."""
    return WarmupCosine(optimizer, total_steps, warmup=0.0, final=0.0)


class LinearProbe(nn.Module):
    """One linear layer, weights drawn from N(0, 0.01).

    Args:
        width: of the vectors.
        num_classes: number of classes.
        batch_norm: standardise the vectors first, each value with its mean and spread in the batch, without weights (MAE,
            https://arxiv.org/abs/2111.06377); in evaluation with their running averages.
    """

    def __init__(self, width: int, num_classes: int, batch_norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6) if batch_norm else None
        self.proj = nn.Linear(width, num_classes)
        nn.init.normal_(self.proj.weight, std=0.01)
        nn.init.zeros_(self.proj.bias)

    def forward(self, vectors: Float[Tensor, "s w"]) -> Float[Tensor, "s c"]:
        """Return the logits."""
        return self.proj(vectors if self.norm is None else self._standardised(self.norm, vectors))

    def _standardised(self, norm: nn.BatchNorm1d, vectors: Tensor) -> Tensor:
        if self.training and len(vectors) < 2:  # one vector has no spread
            return F.batch_norm(vectors, norm.running_mean, norm.running_var, eps=norm.eps)
        return cast(Tensor, norm(vectors))


class LayerScores(ClassScores):
    """Loss, accuracy and macro F1 of each layer's classifier, and the number of labels.

    Args:
        names: of the layers.
        num_classes: number of classes.
    """

    def __init__(self, names: Sequence[str], num_classes: int) -> None:
        super().__init__(dict.fromkeys(names, num_classes))

    def compute(self) -> dict[str, Tensor]:
        """Return cross_entropy, accuracy and macro_f1 of each layer (``accuracy/<layer>``), and samples; nothing without labels."""
        scores, names = super().compute(), list(self.num_classes)
        if len(names) == 1:
            scores = {f"{kind}/{names[0]}": value for kind, value in scores.items()}
        if f"samples/{names[0]}" not in scores:
            return {}
        kinds = {"cross_entropy": "loss", "accuracy": "accuracy", "macro_f1": "macro_f1"}
        found = {f"{shown}/{name}": scores[f"{kind}/{name}"] for shown, kind in kinds.items() for name in names}
        return found | {"samples": scores[f"samples/{names[0]}"]}


class LayerProbing(EncoderTraining):
    """Train a linear classifier on every layer of a frozen encoder, as BEiT does; choose the layer on the validation split.

    Nothing is hidden, and all items of a sample are one sequence. Each layer has a classifier of its own on its tokens before the final
    norm; the encoder runs once for all of them, without gradients. A classifier learns as if it were alone: the loss is the sum of theirs,
    each a mean over all labels of the step, over ranks and accumulated batches alike.

    Logs ``val/accuracy/layer_<number>``, and of the best layer ``val/accuracy`` and ``val/best_layer``, which checkpoints keep. ``test``
    gives the accuracy of every layer, and as ``test/accuracy`` that of the layer which the *validation* chose: the best one of many on
    the test split would be a score of the choice, too. ``predict`` writes the probabilities of that layer.

    Args:
        encoder: one that was trained before (``multimodal.pretrained.load_encoder``); its weights stay.
        modalities: name -> builds the modality from the encoder's width: ``multimodal.modality.Input``.
        num_classes: number of classes.
        layers: their numbers, from 0, negative ones from the end, or "out" for the encoder's output; "all": every layer, and no output.
        vector: what a classifier reads: "class_and_mean" (BEiT; without class token the mean alone), "class" (MAE) or "mean".
        batch_norm: standardise the vectors before the classifier, without weights (MAE); over the labelled samples of a device's batch.
        optimizer: builds the optimizer from parameter groups.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.
        compile_encoder: compile the encoder's layers (``torch.compile``) when a fit starts.

    Raises:
        ValueError: no modalities, a layer that the encoder does not have, or parts that do not fit each other; in training, labels that
            do not fit ``num_classes``, or several layers and no validation split to choose on.
    """

    best_layer: Tensor

    def __init__(
        self,
        encoder: Encoder,
        modalities: dict[str, Callable[[int], Input]],
        num_classes: int,
        layers: Layers = "all",
        vector: VectorOf = "class_and_mean",
        batch_norm: bool = False,
        optimizer: OptimizerCallable = probe_optimizer,
        schedule: Callable[[Optimizer, int], LRScheduler] = probe_schedule,
        compile_encoder: bool = False,
    ) -> None:
        super().__init__(encoder, modalities, optimizer, schedule, None, compile_encoder)
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}.")
        if vector == "class" and encoder.special is None:
            raise ValueError("vector 'class' needs an encoder with a class token; this one has none.")
        for name, modality in self.modalities.items():
            check_input(name, cast(Input, modality), encoder.dim)
        self.layers = chosen_layers(encoder, list(range(encoder.depth)) if layers == "all" else layers)
        self.names = [f"layer_{layer:02d}" if isinstance(layer, int) else OUTPUT for layer in self.layers]
        self.vector, self.num_classes = vector, num_classes
        self.requires_grad_(False)
        width = vector_width(encoder, vector)
        self.probes = nn.ModuleDict({name: LinearProbe(width, num_classes, batch_norm) for name in self.names})
        self.scores = nn.ModuleDict({f"{stage}_scores": LayerScores(self.names, num_classes) for stage in ("train", "val", "test")})
        self.register_buffer("best_layer", torch.tensor(0 if len(self.names) == 1 else UNKNOWN))  # its place in ``layers``
        self.train()  # Lightning leaves the modes as they are: that of an encoder that was loaded is training

    def train(self, mode: bool = True) -> LayerProbing:
        """Set the mode of the classifiers; the encoder and the embeddings stay in that of evaluation."""
        super().train(mode)
        self.encoder.eval()
        self.modalities.eval()
        return self

    def on_fit_start(self) -> None:
        """Compile, where wanted; check that there is a class for each label.

        Raises:
            ValueError: the shards hold more classes than ``num_classes``, or none.
        """
        super().on_fit_start()
        classes = getattr(getattr(self.trainer, "datamodule", None), "classes", None)
        if classes is not None and not 1 <= len(classes) <= self.num_classes:
            raise ValueError(f"the shards hold {len(classes)} classes, num_classes is {self.num_classes}.")

    def on_train_start(self) -> None:
        """Check that there is a split to choose on.

        Raises:
            ValueError: several layers and no validation split.
        """
        batches = cast(Any, self.trainer).num_val_batches
        if len(self.names) > 1 and not sum(batches if isinstance(batches, list) else [batches]):
            raise ValueError("several layers need a validation split, on which the best one is chosen: set val_split, or name one layer.")

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Refuse labels that there is no class for, before the device sees them.

        Raises:
            ValueError: a label is not -1 or one of the classes.
        """
        labels = batch.labels.get(LABEL, torch.empty(0, dtype=torch.int64))
        wrong = ((labels < NO_LABEL) | (labels >= self.num_classes)).nonzero()[:, 0].tolist()
        if wrong:
            raise ValueError(
                f"sample {batch.keys[wrong[0]]!r} has label {int(labels[wrong[0]])}, num_classes is {self.num_classes}: allowed are 0 to "
                f"{self.num_classes - 1}, and {NO_LABEL} for no label."
            )
        return batch

    @torch.no_grad()
    def vectors(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Return name of the layer -> vectors ``(s, w)``, zeros where a sample has no items, and which samples have some."""
        present = torch.zeros(batch.num_samples, dtype=torch.bool, device=self.device)
        if not batch.items:
            return {}, present
        modalities = {name: cast(Input, self.modalities[name]) for name in batch.items}
        parts = [InputTokens(*modalities[name].plain_tokens(items), modalities[name].expert) for name, items in batch.items.items()]
        sequence = torch.cat([part.sequence for part in parts])
        encoded = encode_layers(self.encoder, parts, self.layers)
        vectors = [vectors_of(encoded[layer], sequence, batch.num_samples, self.vector) for layer in self.layers]
        return dict(zip(self.names, vectors, strict=True)), present.index_fill(0, sequence, True)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return name of the layer -> logits ``(s, c)``; nothing for an empty batch. Those of samples without items mean nothing."""
        return {name: self.probes[name](x) for name, x in self.vectors(batch)[0].items()}

    def _terms(self, batch: Batch, stage: str) -> dict[tuple[str, int], Term]:
        vectors, present = self.vectors(batch)
        if not vectors:
            return {}
        labels = batch.labels.get(LABEL, torch.full_like(present, NO_LABEL, dtype=torch.int64))
        chosen = ((labels != NO_LABEL) & present).nonzero()[:, 0]
        labels, losses = labels[chosen], []
        for name, x in vectors.items():
            logits = self.probes[name](x[chosen]).float()
            losses.append(F.cross_entropy(logits, labels, reduction="sum"))
            cast(LayerScores, self._metric(stage)).update(name, losses[-1], guesses := logits.argmax(1), labels)
        # one term: were each layer's labels counted, all would learn at a rate divided by their number
        correct = (guesses == labels).sum()[None]
        count = torch.tensor(len(labels), device=labels.device)
        return {(LABEL, 0): Term(torch.stack(losses).sum(), count, weight=1.0, correct=correct, ids=guesses)}

    def _unused(self, batch: Batch) -> Iterable[nn.Module]:
        return [] if batch.items else [self.probes]

    def _log_scores(self, stage: str) -> None:
        """Choose the layer on the validation split; log the accuracy of each, and all scores of the chosen one."""
        metric = self._metric(stage)
        scores = metric.compute()
        metric.reset()
        if not scores:
            return
        accuracies = torch.stack([scores[f"accuracy/{name}"] for name in self.names])
        if stage == "val" and not self.trainer.sanity_checking:
            self.best_layer.fill_(int(accuracies.argmax()))
        shown = {name: value for name, value in scores.items() if name.startswith("accuracy/") or name == "samples"}
        if self.best_layer != UNKNOWN:
            best = self.names[int(self.best_layer)]
            shown |= {"loss": scores[f"cross_entropy/{best}"], "best_layer": self._number(best)}
            shown |= {name: scores[f"{name}/{best}"] for name in ("accuracy", "macro_f1")}
        for name, value in shown.items():
            on_bar = stage == "val" and name in ("accuracy", "best_layer")
            self.log(f"{stage}/{name}", value, batch_size=1, prog_bar=on_bar, sync_dist=True)  # equal on all ranks already

    def _number(self, name: str) -> Tensor:
        """Return the number of a layer, that of the output being the depth."""
        layer = self.layers[self.names.index(name)]
        return torch.tensor(float(layer if isinstance(layer, int) else self.encoder.depth), device=self.device)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, tuple[list[str], Tensor]]:
        """Return keys and probabilities ``(samples with items, c)`` of the chosen layer as "label", and the classes as "label_ids".

        Raises:
            ValueError: no validation has chosen a layer yet.
        """
        if self.best_layer == UNKNOWN:
            raise ValueError("no validation has chosen a layer yet: give --ckpt_path a checkpoint of a run that was validated.")
        vectors, present = self.vectors(batch)
        if not vectors:
            self._encode_nothing()
            return {}
        best, index = self.names[int(self.best_layer)], present.nonzero()[:, 0]
        probabilities = self.probes[best](vectors[best][index]).float().softmax(1)
        keys = [batch.keys[i] for i in index.tolist()]
        return {LABEL: (keys, probabilities), f"{LABEL}_ids": (keys, probabilities.argmax(1))}
