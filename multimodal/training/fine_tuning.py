"""Fine-tuning: classes of whole samples, from an encoder that was trained before.

Letters in shapes: s samples, c classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Literal, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from multimodal.batch import Batch, Items
from multimodal.datamodules.shards.contents import LABEL, TAGS
from multimodal.heads import ClassificationHead
from multimodal.modality import Input, Modality
from multimodal.nn import Encoded, Encoder
from multimodal.objectives import Part, Term
from multimodal.training.dry_run import check_input
from multimodal.training.encoder_training import EncoderTraining, default_optimizer
from multimodal.training.freezing import freeze
from multimodal.training.head_scores import HeadScores
from multimodal.training.mixing import Mixed, Mixing, can_be_mixed
from multimodal.training.optimization import WarmupCosine
from multimodal.training.views import Said, num_views, views_of

OF_DATA = {LABEL: "classes", TAGS: "tags"}
"""Name of a label that shards hold -> what a data module calls its classes."""
VIEW_SCORES = "{}_view_scores"
"""Name of the scores of single views in a stage."""


class FineTuning(EncoderTraining):
    """Train an encoder, or only a head on it, to tell the classes of samples.

    All items of a sample, of whatever modalities, are one sequence, which a head pools to one vector. A sample without a label (-1), or
    without items, counts for nothing. The loss of an optimizer step is the mean over all its labels, over heads, ranks and accumulated
    batches alike.

    Of items with several views in evaluation (``Transform.num_views``), the logits are the mean over the views, each encoded by itself.

    A modality may hide a part of its tokens in training (``multimodal.masking.Hiding``).

    Logs loss, accuracy and macro F1 (``val/accuracy``; with several heads ``val/accuracy/<head>`` too); of several views also
    those of each view by itself (``val/view_accuracy``) and their number (``val/views``), as systems report them that tell the chunks of a
    piece. Of mixed samples, in training, the label with the larger share counts as the true one. A ``TaggingHead``, for labels of
    which a sample may have several, logs mean average precision, mean ROC area and d-prime instead.

    ``predict`` writes the probabilities of each head as ``<head>.npy`` and the most likely classes as ``<head>_ids.npy``; a ``TaggingHead``
    predicts probabilities alone.

    Args:
        encoder: a new one, or one that was trained before (``multimodal.pretrained.load_encoder``).
        modalities: name -> builds the modality from the encoder's width: ``multimodal.modality.Input``.
        heads: name of a label -> builds its head from the encoder's width, or is one. Shards hold "label", one class, and "labels", several
            of them, which is for a ``TaggingHead``.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1); with a ``TaggingHead``, of each class over there and
            not there. BEiT: 0.1.
        freeze_layers: the embeddings and so many first layers keep their weights, and their dropout is off; "all": the whole encoder does.
            0: nothing does.
        optimizer: builds the optimizer from parameter groups; biases, norms and the like are not decayed.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.
        layer_decay: the learning rate of a layer as a share of the next one's, in (0, 1]; None: the same for all. BEiT base: 0.65 to 0.85.
        compile_encoder: compile the encoder's layers (``torch.compile``) when a fit starts.
        mixing: mixes samples of training batches, and their labels (Mixup, CutMix); None: none.

    Raises:
        ValueError: no modalities or heads, a setting outside its range, or parts that do not fit each other; in training, a label without a
            class, or none at all in an epoch.
    """

    hides = reads_views = True

    def __init__(
        self,
        encoder: Encoder,
        modalities: dict[str, Callable[[int], Input]],
        heads: dict[str, Callable[[int], ClassificationHead] | ClassificationHead],
        label_smoothing: float = 0.0,
        freeze_layers: int | Literal["all"] = 0,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Callable[[Optimizer, int], LRScheduler] = WarmupCosine,
        layer_decay: float | None = None,
        compile_encoder: bool = False,
        mixing: Mixing | None = None,
    ) -> None:
        super().__init__(encoder, modalities, optimizer, schedule, layer_decay, compile_encoder)
        if not heads:
            raise ValueError("heads is empty: name at least one, by the label that it is to tell.")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}.")
        for name, modality in self.modalities.items():
            if isinstance(modality, Modality):
                raise ValueError(
                    f"modality {name!r} is one of pretraining: give multimodal.modality.Input its transform and its embedding."
                )
        self.heads = nn.ModuleDict({name: x if isinstance(x, ClassificationHead) else x(encoder.dim) for name, x in heads.items()})
        self.label_smoothing, self.mixing = label_smoothing, mixing
        self._frozen = freeze(self, freeze_layers)
        own = {name: cast(ClassificationHead, head) for name, head in self.heads.items()}
        self.scores = nn.ModuleDict({f"{stage}_scores": HeadScores(own) for stage in ("train", "val", "test")})
        for stage in ("val", "test") if num_views(self.transforms) > 1 else ():
            self.scores[VIEW_SCORES.format(stage)] = HeadScores(own)
        self._labelled = 0  # labels of this epoch
        self._check_parts()
        self.train()  # which Lightning does not call before the first step

    @torch.no_grad()
    def _check_parts(self) -> None:
        """Try the embeddings on the transforms' examples, and the heads on one token."""
        for name, modality in self.modalities.items():
            check_input(name, cast(Input, modality), self.encoder.dim)
        if self.mixing is not None:
            self._check_mixing()
        token, first = torch.zeros(1, self.encoder.dim), torch.zeros(1, dtype=torch.int64)
        encoded = Encoded(token, None if self.encoder.special is None else token)
        for name, head in self.heads.items():
            try:
                head(encoded, first, 1)
            except (ValueError, RuntimeError) as error:
                raise ValueError(f"head {name!r} does not fit the encoder: {str(error).splitlines()[0]}") from error

    def _check_mixing(self) -> None:
        assert self.mixing is not None
        examples, names = [transform.example() for transform in self.transforms.values()], ", ".join(self.transforms)
        if all(item is not None and not can_be_mixed(item.values, item.ragged) for item in examples):
            raise ValueError(f"mixing has no effect on {names}, whose items are ids: leave it out.")
        if self.mixing.cutmix_alpha and all(item is not None and not can_be_mixed(item.values, item.ragged, cut=True) for item in examples):
            raise ValueError(f"CutMix has no effect on {names}, whose items are sequences: set the mixing's cutmix_alpha to 0.")

    def train(self, mode: bool = True) -> FineTuning:
        """Set the mode of all parts but the frozen ones, whose dropout stays off."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def on_fit_start(self) -> None:
        """Compile, where wanted; check that the data's classes have places in the head.

        Raises:
            ValueError: the shards hold more classes than the head has, or no labels.
        """
        super().on_fit_start()
        for name, attribute in OF_DATA.items():
            classes = getattr(getattr(self.trainer, "datamodule", None), attribute, None)
            if classes is None or name not in self.heads:
                continue
            if not classes:
                raise ValueError(f"the shards hold no labels: head {name!r} has nothing to learn, as no sample has an entry {name!r}.")
            places = self.heads[name].num_classes
            if len(classes) > places:
                raise ValueError(f"the shards hold {len(classes)} classes, but head {name!r} has num_classes {places}: set it.")

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Refuse labels that a head has no class for, before the device sees them.

        Raises:
            ValueError: a sample has labels that a head has no place for.
        """
        for name in self.heads:
            if name not in batch.labels:
                continue
            head, labels = self._head(name), batch.labels[name]
            misfit = head.misfit(labels)
            if misfit is not None:
                raise ValueError(
                    f"sample {batch.keys[misfit.sample]!r} has {misfit.found} for head {name!r}, whose num_classes is {head.num_classes}: "
                    f"allowed {misfit.allowed}."
                )
            self._labelled += int(head.labelled(labels).sum()) if self.training else 0
        return batch

    def _head(self, name: str) -> ClassificationHead:
        return cast(ClassificationHead, self.heads[name])

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return head name -> logits ``(s, c)``; nothing for an empty batch. Those of samples without tokens mean nothing."""
        return self._said(batch, self._logits).mean()

    def _logits(self, encoded: Encoded, sequence: Tensor, num_sequences: int) -> dict[str, Tensor]:
        """Return head name -> logits."""
        return {name: head(encoded, sequence, num_sequences) for name, head in self.heads.items()}

    def _said(self, batch: Batch, say: Callable[[Encoded, Tensor, int], dict[str, Tensor]], stage: str = "predict") -> Said:
        """Return what is said of each view of the samples, of which tokens may be hidden in a stage; of a batch without items nothing."""
        found, present = defaultdict[str, list[Tensor]](list), []
        for view in [batch] if self.training or not batch.items else views_of(batch, self.transforms):
            read = self._read(view, stage)
            if read is None:
                if batch.items:  # sharded layers run as often as on ranks that have this view
                    super()._encode_nothing()
                continue
            for name, x in say(*read).items():
                found[name].append(F.pad(x, (0, 0, 0, batch.num_samples - read[2])))
            present.append(torch.zeros(batch.num_samples, dtype=torch.bool, device=self.device).index_fill(0, read[1], True))
        none = torch.zeros(0, batch.num_samples, dtype=torch.bool, device=self.device)
        return Said({name: torch.stack(views) for name, views in found.items()}, torch.stack(present) if present else none)

    def _encode_nothing(self) -> Tensor:
        """Return 0; sharded layers run as often as on ranks that have items."""
        times = 1 if self.training else num_views(self.transforms)
        return torch.stack([super(FineTuning, self)._encode_nothing() for _ in range(times)]).sum()

    def _read(self, batch: Batch, stage: str) -> tuple[Encoded, Tensor, int] | None:
        """Return what heads read: what the encoder says, the sample of each token, and the samples up to the last with tokens."""
        if not batch.items:
            return None
        parts = {name: self._part(cast(Input, self.modalities[name]), items, stage) for name, items in batch.items.items()}
        encoded, sequence = self.encode(parts), torch.cat([sample for _, sample, _ in parts.values()])
        return encoded, sequence, batch.num_samples if encoded.class_token is None else len(encoded.class_token)

    def _part(self, modality: Input, items: Items, stage: str) -> Part:
        seen = modality.seen(items, modality.hiding_in(stage))
        return seen.vectors, items.sample[seen.item], seen.coordinates

    def _terms(self, batch: Batch, stage: str) -> dict[tuple[str, int], Term]:
        terms = {}
        batch, mixed = self.mixing(batch) if stage == "train" and self.mixing is not None else (batch, None)
        said = self._said(batch, self._logits, stage)
        for name, logits in said.mean().items():
            head = self._head(name)
            labels = head.told(batch.labels.get(name), len(logits))
            chosen = (head.labelled(labels) & said.samples).nonzero()[:, 0]
            found = logits[chosen].float()
            guesses = head.guesses(found)
            loss, true = self._loss(head, found, labels, chosen, mixed)
            cast(HeadScores, self._metric(stage)).update(name, loss, guesses, true)
            if VIEW_SCORES.format(stage) in self.scores:
                self._score_views(stage, name, said.views[name][:, chosen], said.present[:, chosen], labels[chosen])
            correct, count = head.right(guesses, true).sum()[None], torch.tensor(len(chosen), device=logits.device)
            terms[name, 0] = Term(loss, count=count, weight=1.0, correct=correct, ids=guesses)
        return terms

    def _score_views(self, stage: str, name: str, logits: Tensor, present: Tensor, labels: Tensor) -> None:
        """Score each view of labelled samples by itself; ``logits``: ``(v, m, c)``, ``present``: ``(v, m)``."""
        head, own = self._head(name), logits[present].float()
        true = labels.expand(len(present), *labels.shape)[present]
        scores = cast(HeadScores, self.scores[VIEW_SCORES.format(stage)])
        scores.update(name, head.losses(own, true, self.label_smoothing).sum(), head.guesses(own), true)

    def _log_scores(self, stage: str) -> None:
        super()._log_scores(stage)
        if VIEW_SCORES.format(stage) not in self.scores:
            return
        metric = cast(HeadScores, self.scores[VIEW_SCORES.format(stage)])
        for name, value in metric.compute().items():
            self.log(f"{stage}/{view_score(name)}", value, batch_size=1, sync_dist=True)  # equal on all ranks already
        metric.reset()

    def _loss(self, head: ClassificationHead, logits: Tensor, labels: Tensor, chosen: Tensor, mixed: Mixed | None) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses of the chosen samples, whose logits these are, and what counts as their true classes."""
        own = labels[chosen]
        if mixed is None:
            return head.losses(logits, own, self.label_smoothing).sum(), own
        share, other = mixed.share[chosen], labels[mixed.partner[chosen]]  # partners have labels for the same heads
        losses = [head.losses(logits, told, self.label_smoothing) for told in (own, other)]  # of a shared target, as they are linear in it
        larger = (share >= 0.5).view(-1, *[1] * (own.ndim - 1))
        return (share * losses[0] + (1 - share) * losses[1]).sum(), torch.where(larger, own, other)

    def _unused(self, batch: Batch) -> Iterable[nn.Module]:
        return [self.modalities] if batch.items else [self.modalities, self.heads]  # of embeddings in use, the vector of the mask

    def on_train_epoch_end(self) -> None:
        """Refuse to go on without labels.

        Raises:
            ValueError: no sample of the epoch had a label of any head.
        """
        count = self.trainer.strategy.reduce(torch.tensor(float(self._labelled), device=self.device), reduce_op="sum")
        self._labelled = 0
        if not count:
            raise ValueError(f"no sample of the epoch has a label {' or '.join(map(repr, self.heads))}: there is nothing to learn.")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, tuple[list[str], Tensor]]:
        """Return head name -> keys and probabilities ``(samples with items, c)``, and for one label ``<head>_ids`` -> keys and classes.

        Of heads with vectors of their own also ``<head>_<name>`` -> keys and vectors: ``<head>_embeddings``.
        """
        found = self._said(batch, self._logits_and_vectors)
        if not found.views:
            self._encode_nothing()
            return {}
        index = found.samples.nonzero()[:, 0]
        keys = [batch.keys[i] for i in index.tolist()]
        chosen = {name: values[index].float() for name, values in found.mean().items()}
        told: dict[str, Tensor] = {}
        for name in self.heads:
            told |= self._head(name).predictions(name, chosen.pop(name))
        return {name: (keys, values) for name, values in (told | chosen).items()}

    def _logits_and_vectors(self, encoded: Encoded, sequence: Tensor, num_sequences: int) -> dict[str, Tensor]:
        """Return head name -> logits, and ``<head>_<name>`` -> vectors of heads that have such."""
        said = self._logits(encoded, sequence, num_sequences)
        for name in self.heads:
            own = self._head(name).vectors(encoded, sequence, num_sequences)
            said |= {f"{name}_{what}": vectors for what, vectors in own.items()}
        return said

    def _shown(self, score: str) -> bool:
        return score.partition("/")[0] in ("loss", "accuracy", "mean_average_precision")


def view_score(name: str) -> str:
    """Return what a score is called when it is one of single views: accuracy/<head> -> view_accuracy/<head>, samples -> views."""
    score, slash, head = name.partition("/")
    return ("views" if score == "samples" else f"view_{score}") + slash + head
