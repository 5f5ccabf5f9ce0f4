"""Tags of words: names of persons and places, parts of speech, from an encoder that was trained before.

Letters in shapes: w words of all items, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any, Literal, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from multimodal.batch import Batch, Items
from multimodal.heads.token import TokenClassifier
from multimodal.modality import Input
from multimodal.nn import Encoder
from multimodal.objectives import Term
from multimodal.training.encoder_training import default_optimizer
from multimodal.training.entity_scores import NAME, WordScores
from multimodal.training.optimization import WarmupCosine
from multimodal.training.place_labelling import NO_CLASS, PlaceLabelling
from multimodal.windowed import TagColumn, unpack, windows_of

TAGGED = "tagged"
"""The name of what ``predict`` writes."""


class WordLabelling(PlaceLabelling):
    """Train an encoder, or only a head on it, to tell the tag of each word, at its first token.

    Each window of a text is a sequence of its own. The loss of an optimizer step is the mean cross-entropy over all its tagged words, over
    ranks and accumulated batches alike.

    Logs loss, accuracy and macro F1 over the tagged words; where the tags are those of entities (BIO, BILOU, IOBES), in validation and
    test also precision, recall and F1 of whole entities (``val/entity_f1``). ``predict`` writes a line of JSON for each sample to
    ``RUN/predictions/tagged.jsonl``: all its words, and the tag that is told of each.

    Args:
        encoder: a new one, or one that was trained before (``multimodal.pretrained.load_encoder``).
        modalities: name -> builds the modality from the encoder's width: one ``multimodal.modality.Input``, whose transform has ``classes``
            and makes windows of tagged words.
        head: builds the head from the encoder's width, or is one; as many classes as the transform has.
        freeze_layers: the embeddings and so many first layers keep their weights, and their dropout is off; "all": the whole encoder does.
            0: nothing does.
        optimizer: builds the optimizer from parameter groups; biases, norms and the like are not decayed.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.
        layer_decay: the learning rate of a layer as a share of the next one's, in (0, 1]; None: the same for all.
        compile_encoder: compile the encoder's layers (``torch.compile``) when a fit starts.

    Raises:
        ValueError: a setting outside its range, or parts that do not fit each other; in training, no tagged word in the first 50 batches,
            or in a whole epoch.
    """

    place, kind, reader = "word", "tag", "multimodal.tokenizers.text.WordTagTransform"
    head: TokenClassifier

    def __init__(
        self,
        encoder: Encoder,
        modalities: dict[str, Callable[[int], Input]],
        head: Callable[[int], TokenClassifier] | TokenClassifier,
        freeze_layers: int | Literal["all"] = 0,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Callable[[Optimizer, int], LRScheduler] = WarmupCosine,
        layer_decay: float | None = None,
        compile_encoder: bool = False,
    ) -> None:
        super().__init__(encoder, modalities, optimizer, schedule, layer_decay, compile_encoder)
        self.head = head if isinstance(head, TokenClassifier) else head(encoder.dim)
        if self.num_classes != len(self.classes):
            raise ValueError(f"the head's num_classes is {self.num_classes}, the transform has {len(self.classes)} classes.")
        self._complete(freeze_layers, partial(WordScores, self.classes))

    def _check_modality(self) -> None:
        super()._check_modality()
        example = self.modality.transform.example()
        labels = None if example is None else example.labels
        if not self.classes or labels is None or labels.ndim != 2 or labels.shape[1] != len(TagColumn):
            raise ValueError(
                f"the transform of modality {self.name!r}, a {type(self.modality.transform).__name__}, makes no windows of tagged words: "
                f"use one that does, such as {self.reader}."
            )

    @property
    def classes(self) -> list[str]:
        """The tags, in the order of their numbers."""
        return list(getattr(self.modality.transform, "classes", ()))

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Count tagged words; refuse a batch whose items bring no labels."""
        tags = {name: items if items.labels is None else replace(items, labels=_tags(items)) for name, items in batch.items.items()}
        super().on_before_batch_transfer(replace(batch, items=tags), dataloader_idx)
        return batch

    def forward(self, items: Items) -> Tensor:
        """Return the logits ``(w, c)`` float32 of all words of the items, in their order."""
        windows = windows_of(items)
        tokens = self.modality.embed.tokens(items.values, windows.lengths)
        told = cast(Tensor, items.labels)[:, TagColumn.WORD] >= 0
        encoded = self.encode({self.name: (self.modality.embed(tokens), tokens.item, tokens.coordinates)}, wanted=told)
        return self.head(encoded.tokens).float()

    def _terms(self, batch: Batch, stage: str) -> dict[tuple[str, int], Term]:
        return {(name, 0): self._term(items, stage) for name, items in batch.items.items()}

    def _term(self, items: Items, stage: str) -> Term:
        logits, rows = self.forward(items), _words(items)
        there = rows[:, TagColumn.TAG] != NO_CLASS
        truth, logits = rows[there, TagColumn.TAG], logits[there]
        loss, guesses = F.cross_entropy(logits, truth, reduction="sum"), logits.argmax(1)
        scores = cast(WordScores, self._metric(stage))
        scores.update(NAME, loss, guesses, truth)
        if stage != "train" and scores.kinds:
            _score_entities(scores, items, guesses, there)
        count = torch.tensor(len(truth), device=loss.device)
        return Term(loss, count=count, weight=1.0, correct=(guesses == truth).sum()[None], ids=guesses)

    def _unused(self, batch: Batch) -> Iterable[nn.Module]:
        return [self.modalities] if batch.items else [self.modalities, self.head]  # of the embedding in use, the vector of the mask

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Return the keys of the samples, and of each its words and the tags that are told of them."""
        if not batch.items:
            self._encode_nothing()
            return {}
        items = batch.items[self.name]
        told = [self.classes[number] for number in self.forward(items).argmax(1).tolist()]
        found, first = [], 0
        for words in unpack(items.tokenizer_values):
            found.append({"words": words, "tags": told[first : first + len(words)]})
            first += len(words)
        return {TAGGED: ([batch.keys[number] for number in items.sample.tolist()], found)}

    def on_predict_end(self) -> None:
        """Write nothing here: the lines are written together."""

    def _shown(self, score: str) -> bool:
        return score in ("loss", "accuracy", "entity_f1")


def _tags(items: Items) -> Tensor:
    return cast(Tensor, items.labels)[:, TagColumn.TAG]


def _words(items: Items) -> Tensor:
    """Return the labels of the tokens that tell a word, ``(w, 4)``."""
    labels = cast(Tensor, items.labels)
    return labels[labels[:, TagColumn.WORD] >= 0]


def _score_entities(scores: WordScores, items: Items, guesses: Tensor, there: Tensor) -> None:
    """Compare the entities of each sentence, which are read from its tagged words."""
    item = torch.repeat_interleave(cast(Tensor, items.lengths))[cast(Tensor, items.labels)[:, TagColumn.WORD] >= 0]
    rows = _words(items)[there]
    sentences = zip(item[there].tolist(), rows[:, TagColumn.SENTENCE].tolist(), strict=True)
    told = zip(sentences, guesses.tolist(), rows[:, TagColumn.TAG].tolist(), strict=True)
    for _, group in groupby(told, key=lambda word: word[0]):
        own, truths = zip(*((guess, truth) for _, guess, truth in group), strict=True)
        scores.update_entities(own, truths)
