"""Retrieval: embeddings of two kinds of items, by which those that belong together are found.

Letters in shapes: n tokens, d width of the encoder.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, distributed, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from multimodal.batch import Batch, Items
from multimodal.heads.retrieval import Embeddings, RetrievalHead, Similarity, turned
from multimodal.heads.retrieval_search import nearest
from multimodal.modality import Input, Modality
from multimodal.nn import Encoded, Encoder
from multimodal.nn.zero import zero_of
from multimodal.objectives import Term
from multimodal.objectives.objective import Part
from multimodal.protocols import Tokenizer
from multimodal.training.callbacks.predictions import FOLDER
from multimodal.training.dry_run import check_input
from multimodal.training.encoder_training import EncoderTraining, default_optimizer
from multimodal.training.freezing import freeze
from multimodal.training.optimization import WarmupCosine
from multimodal.training.retrieval_batch import Sides, contents_of
from multimodal.training.retrieval_losses import InfoNCE, PairLoss
from multimodal.training.retrieval_scores import RetrievalScores

LISTED = 10
"""Items that ``predict`` lists for each query."""


class Retrieval(EncoderTraining):
    """Train an encoder, or only heads on it, to give items that belong together similar embeddings, and others different ones.

    The two items of a sample are encoded each by itself, so that embeddings can be made, kept and searched apart. Every pair of a step, of
    all processes, is compared with every other. Items of equal content (a caption of several pictures) are not held against each other's
    partners. A sample without one of both items counts for nothing, but is embedded by ``predict``. The loss of a step is the mean over its
    items; that of a part of a batch would be another one, so gradients are not accumulated.

    Logs the loss, which depends on the number of samples in a batch; in training the share of partners that win their batch
    (``train/accuracy``) and the temperature; in validation and test recall, median rank and mean reciprocal rank among *all* items of the
    split, in both directions (``val/recall_1``, ``val/recall_10/<first>_to_<second>``). ``predict`` writes the embeddings of each modality,
    and the ten nearest of each item to ``RUN/predictions/<first>_to_<second>.tsv`` and the other way round.

    Args:
        encoder: a new one, or one that was trained before (``multimodal.pretrained.load_encoder``).
        modalities: name -> builds the modality from the encoder's width: two of ``multimodal.modality.Input``, the one that asks first. Two
            fields of one kind: ``multimodal.tokenizers.from_fields.FromFields``.
        head: builds the head from the encoder's width: ``multimodal.heads.PooledEmbedding`` or ``LateInteraction``; both modalities share
            it.
        second_head: builds a head of its own for the second modality, of the same kind and width; None: they share one. CLIP: of its own.
        loss: tells pairs from others: ``InfoNCE`` or ``SigmoidLoss`` of ``multimodal.training.retrieval_losses``; None: ``InfoNCE``.
        shared_embed: both modalities enter the encoder by the embedding of the first, as two fields of texts do.
        freeze_layers: the embeddings and so many first layers keep their weights, and their dropout is off; "all": the whole encoder does.
            0: nothing does.
        optimizer: builds the optimizer from parameter groups; biases, norms and the like are not decayed.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.
        layer_decay: the learning rate of a layer as a share of the next one's, in (0, 1]; None: the same for all.
        compile_encoder: compile the encoder's layers (``torch.compile``) when a fit starts.

    Raises:
        ValueError: a setting outside its range, or parts that do not fit each other; in training, no pair in an epoch, or accumulated
            gradients.
    """

    def __init__(
        self,
        encoder: Encoder,
        modalities: dict[str, Callable[[int], Input]],
        head: Callable[[int], RetrievalHead],
        second_head: Callable[[int], RetrievalHead] | None = None,
        loss: PairLoss | None = None,
        shared_embed: bool = False,
        freeze_layers: int | Literal["all"] = 0,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Callable[[Optimizer, int], LRScheduler] = WarmupCosine,
        layer_decay: float | None = None,
        compile_encoder: bool = False,
    ) -> None:
        super().__init__(encoder, modalities, optimizer, schedule, layer_decay, compile_encoder)
        self._check_modalities()
        if shared_embed:
            self._share_embed()
        built = head(encoder.dim)
        self.heads = nn.ModuleDict(dict(zip(self.names, (built, second_head(encoder.dim) if second_head else built), strict=True)))
        self.loss = InfoNCE() if loss is None else loss
        self._check_parts()
        self._frozen = freeze(self, freeze_layers)
        scores = {f"{stage}_scores": RetrievalScores(self.names, built.similarity, stage != "train") for stage in ("train", "val", "test")}
        self.scores = nn.ModuleDict(scores)
        self._pairs = 0  # of this epoch
        self._embedded: list[tuple[list[list[str]], list[Embeddings]]] = []  # by predict: keys and embeddings of both kinds
        self.train()  # which Lightning does not call before the first step

    def _check_modalities(self) -> None:
        if len(self.modalities) != 2:
            raise ValueError(f"modalities must be two, whose items are to find each other; got {', '.join(self.modalities)}.")
        for name, modality in self.modalities.items():
            if isinstance(modality, Modality):
                raise ValueError(
                    f"modality {name!r} is one of pretraining: give multimodal.modality.Input its transform and its embedding."
                )

    def _share_embed(self) -> None:
        first, second = (cast(Input, modality) for modality in self.modalities.values())
        if type(first.embed) is not type(second.embed):
            kinds = f"{type(first.embed).__name__} and {type(second.embed).__name__}"
            raise ValueError(f"shared_embed needs two modalities that enter the encoder alike; these do by {kinds}.")
        for source in second.sources:
            first.embed.check_source(source)
        second.embed = first.embed

    @torch.no_grad()
    def _check_parts(self) -> None:
        """Try the embeddings on the transforms' examples, and the heads on one token."""
        for name, modality in self.modalities.items():
            check_input(name, cast(Input, modality), self.encoder.dim)
        token, first = torch.zeros(1, self.encoder.dim), torch.zeros(1, dtype=torch.int64)
        encoded = Encoded(token, None if self.encoder.special is None else token)
        shapes = {}
        for name in self.names:
            try:
                shapes[name] = (type(self._head(name)).__name__, self._head(name)(encoded, first, 1).shape[1])
            except (ValueError, RuntimeError) as error:
                raise ValueError(f"the head of {name!r} does not fit the encoder: {str(error).splitlines()[0]}") from error
        if len(set(shapes.values())) > 1:
            raise ValueError(f"both heads must be of one kind and make vectors of one width, got {list(shapes.values())}.")

    @property
    def names(self) -> tuple[str, str]:
        """The names of the modalities, that which asks first."""
        first, second = self.modalities
        return first, second

    @property
    def similarity(self) -> Similarity:
        """How similar items of the first modality are to those of the second."""
        return self._head(self.names[0]).similarity

    def _head(self, name: str) -> RetrievalHead:
        return cast(RetrievalHead, self.heads[name])

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all parts but the frozen ones, whose dropout stays off."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def on_fit_start(self) -> None:
        """Compile, where wanted.

        Raises:
            ValueError: gradients are to be accumulated.
        """
        super().on_fit_start()
        count = self.trainer.accumulate_grad_batches
        if count > 1:
            raise ValueError(
                f"accumulate_grad_batches is {count}, but pairs are compared within a batch, and parts of one would be compared apart: "
                "leave it out, and set a larger batch_size, or use more processes."
            )

    def forward(self, batch: Batch) -> dict[str, Embeddings]:
        """Return modality name -> the embeddings of its items, each of which is encoded by itself; nothing for an empty batch."""
        given: dict[str, Part] = {}
        valid: dict[str, Tensor | None] = {}
        counts: dict[str, int] = {}
        for name, items in batch.items.items():
            given[name], valid[name] = self._part(name, items, sum(counts.values()))
            counts[name] = len(items)
        if not given:
            return {}
        encoded, found, first = self.encode(given), {}, 0
        tokens = encoded.tokens.split([len(part[0]) for part in given.values()])
        for (name, (_, sequence, _)), own in zip(given.items(), tokens, strict=True):
            rows = slice(first, first + counts[name])
            special = [None if x is None else x[rows] for x in (encoded.class_token, encoded.registers)]
            found[name] = self._head(name).embeddings(Encoded(own, *special), sequence - first, counts[name], valid[name])
            first += counts[name]
        return found

    def _part(self, name: str, items: Items, first: int) -> tuple[Part, Tensor | None]:
        """Return the tokens of items, whose sequences are numbered from ``first``, and which of them are no marks; None: all."""
        modality = cast(Input, self.modalities[name])
        tokens = modality.embed.tokens(items.values, items.lengths)
        tokenizer, marks = getattr(modality.transform, "tokenizer", None), None
        if self._head(name).skips_marks and isinstance(tokenizer, Tokenizer):
            marks = tokenizer.marks(tokens.inputs)
        return (modality.embed(tokens), tokens.item + first, tokens.coordinates), None if marks is None else ~marks

    def _sides(self, batch: Batch, paired: bool) -> tuple[Sides, dict[str, Tensor]]:
        """Return the embeddings of all processes, and the samples of this one that they are of.

        Gradients of parameters that nothing uses pass through the same exchange: it must come before any other of the backward pass.

        Args:
            batch: of this process.
            paired: whether items without a partner are left out.
        """
        found = self.forward(batch)
        chosen = self._chosen(batch, paired)
        zero = super()._absent_parameters(batch)
        embeddings, contents = [], []
        for name in self.names:
            own = found[name].select(chosen[name]) if name in found else self._no_embeddings(name)
            embeddings.append(Embeddings(own.vectors + zero, own.lengths))
            key = contents_of(batch.items[name]) if name in batch.items else torch.zeros(0, dtype=torch.int64, device=self.device)
            contents.append(key[chosen[name]])
        samples = {name: items.sample[chosen[name]] for name, items in batch.items.items()}
        return Sides.of_all(embeddings, contents), samples

    def _no_embeddings(self, name: str) -> Embeddings:
        token = torch.zeros(1, self.encoder.dim, device=self.device)
        encoded = Encoded(token, None if self.encoder.special is None else token)
        with torch.no_grad():
            width = self._head(name)(encoded, torch.zeros(1, dtype=torch.int64, device=self.device), 1).shape[1]
        nothing = torch.zeros(0, dtype=torch.int64, device=self.device)
        return Embeddings(torch.zeros(0, width, device=self.device), nothing)

    def _chosen(self, batch: Batch, paired: bool) -> dict[str, Tensor]:
        """Return modality name -> the numbers of the items to compare, in the order of their samples."""
        place = {}
        for name in self.names:
            place[name] = torch.full((batch.num_samples,), -1, device=self.device)
            if name in batch.items:
                sample = batch.items[name].sample
                place[name][sample] = torch.arange(len(sample), device=self.device)
        there = torch.stack(list(place.values())) >= 0
        both = there.all(0)
        return {name: row[both if paired else own] for (name, row), own in zip(place.items(), there, strict=True)}

    def _terms(self, batch: Batch, stage: str) -> dict[tuple[str, int], Term]:
        sides, _ = self._sides(batch, paired=True)
        first, second = sides.embeddings
        losses, correct = self._losses(sides)
        count, right = torch.tensor(len(losses), device=losses.device), correct.sum()
        loss = losses.sum() + zero_of([first.vectors, second.vectors])
        scores = cast(RetrievalScores, self._metric(stage))
        pairs = int(sides.own[0].sum())
        scores.update(loss, count, right, pairs)
        if stage == "train":
            self._pairs += pairs
        else:
            scores.keep(first, second, sides.pair_contents)
        return {("pairs", 0): Term(loss, count=count, weight=1.0, correct=right[None], ids=losses.detach())}

    def _losses(self, sides: Sides) -> tuple[Tensor, Tensor]:
        """Return the losses of the items of this process, and whether their partners win."""
        first, second = sides.embeddings
        own, equal = sides.own[0].nonzero()[:, 0], sides.equal
        alone = len(own) == len(first)
        rows = self.similarity(first if alone else first.select(own), second)
        losses, right = [self.loss(rows, own, equal[own])], [_wins(rows, own, equal[own])]
        if self.loss.both_ways:
            columns = (rows if alone else self.similarity(first, second.select(own))).T
            losses.append(self.loss(columns, own, equal[own]))
            right.append(_wins(columns, own, equal[own]))
        return torch.cat(losses), torch.cat(right)

    def _unused(self, batch: Batch) -> Iterable[nn.Module]:
        return [self.modalities, self.heads, self.loss]

    def _absent_parameters(self, batch: Batch) -> Tensor:
        return torch.zeros((), device=self.device)  # they are in the embeddings: see _sides

    def _evaluate(self, batch: Batch, stage: str) -> None:
        self._terms(batch, stage)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step; then keep the temperature in its bounds."""
        super().optimizer_step(*args, **kwargs)
        self.loss.after_step()

    def on_train_epoch_end(self) -> None:
        """Log the temperature; refuse to go on without pairs.

        Raises:
            ValueError: no sample of the epoch had items of both modalities.
        """
        count = self.trainer.strategy.reduce(torch.tensor(float(self._pairs), device=self.device), reduce_op="sum")
        self._pairs = 0
        if not count:
            first, second = self.names
            raise ValueError(f"no sample of the epoch has both {first!r} and {second!r}: there is nothing to learn.")
        self.log("train/temperature", self.loss.temperature, sync_dist=False, rank_zero_only=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, tuple[list[str], Tensor]]:
        """Return modality name -> keys and embeddings; with several vectors for an item its key stands at each."""
        sides, samples = self._sides(batch, paired=False)
        keys = [[batch.keys[number] for number in samples[name].tolist()] if name in samples else [] for name in self.names]
        self._embedded.append((_keys_of_all(keys), [side.to("cpu") for side in sides.embeddings]))
        written = {}
        for name, own, whole, mine in zip(self.names, keys, sides.embeddings, sides.own, strict=True):
            if own:
                local = whole.select(mine.nonzero()[:, 0])
                written[name] = ([own[number] for number in local.item.tolist()], local.vectors.float())
        return written

    def on_predict_end(self) -> None:
        """Write the nearest items of each."""
        embedded, self._embedded = self._embedded, []
        if not self.trainer.is_global_zero or not embedded:
            return
        keys = [[key for found, _ in embedded for key in found[side]] for side in range(2)]
        sides = [Embeddings.join([found[side] for _, found in embedded]).to(self.device) for side in range(2)]
        folder = Path(self.trainer.default_root_dir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for own, similarity in ((0, self.similarity), (1, turned(self.similarity))):
            if len(sides[0]) and len(sides[1]):
                path = folder / f"{self.names[own]}_to_{self.names[1 - own]}.tsv"
                _write_nearest(path, (keys[own], keys[1 - own]), (sides[own], sides[1 - own]), similarity)

    def _shown(self, score: str) -> bool:
        return score in ("loss", "recall_1")


def _wins(similarities: Tensor, partner: Tensor, equal: Tensor) -> Tensor:
    """Return whether the partner is the most similar; of those that are as right it alone is looked at."""
    others = equal.scatter(1, partner[:, None], False)
    masked = similarities.masked_fill(others, -torch.inf)
    return masked.argmax(1) == partner if masked.numel() else torch.zeros_like(partner, dtype=torch.bool)


def _keys_of_all(keys: list[list[str]]) -> list[list[str]]:
    """Return the keys of all processes, of both kinds."""
    if not distributed.is_initialized():
        return keys
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, keys)
    return [[key for part in parts for key in part[side]] for side in range(2)]


def _write_nearest(path: Path, keys: tuple[list[str], list[str]], sides: tuple[Embeddings, Embeddings], similarity: Similarity) -> None:
    """Write a line for each query and item found: both keys, the rank and the similarity."""
    found = nearest(sides[0], sides[1], LISTED, similarity)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["query", "rank", "found", "similarity"])
        for key, scores, index in zip(keys[0], found.scores.tolist(), found.places.tolist(), strict=True):
            rows = enumerate(zip(index, scores, strict=True), 1)
            writer.writerows([key, rank, keys[1][number], f"{score:.4f}"] for rank, (number, score) in rows)
    print(f"{path}: {len(keys[0])} queries")
