"""Labels of tokens: a class for each place along an item, such as each frame of a sound, from an encoder that was trained before.

Letters in shapes: n tokens, r rows of all items, p places of all items, d width, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from multimodal.atomic import atomic_file
from multimodal.batch import Batch, Items
from multimodal.heads.ctc import time_steps
from multimodal.heads.token import TokenClassifier
from multimodal.modality import Input, Seen
from multimodal.nn import Encoder
from multimodal.objectives import Term
from multimodal.training.encoder_training import default_optimizer
from multimodal.training.optimization import WarmupCosine
from multimodal.training.place_labelling import NO_CLASS, PlaceLabelling
from multimodal.training.scores import ClassScores
from multimodal.windowed import PlaceColumn, is_windowed, split_windows

MAX_CLASSES = 2**15
"""What an int16 holds, in which guesses are written."""


class Rows(NamedTuple):
    """What the head says of the rows of all items, end to end.

    Args:
        logits: ``(r, c)`` float32.
        counts: ``(items,)`` int64, rows of each item.
        hidden: ``(r,)`` bool, True where the encoder was shown none of the tokens of a row; None: nothing was hidden.
    """

    logits: Tensor
    counts: Tensor
    hidden: Tensor | None = None


class Places(NamedTuple):
    """The places of all items, end to end.

    Args:
        row: ``(p,)`` int64, which row tells each.
        classes: ``(p,)`` int64, what it is labelled with; -1: nothing.
        number: ``(p,)`` int64, its number among the places of its item.
        item: ``(p,)`` int64, the item that it is of.
        counts: ``(items,)`` int64, the places of each item, with those that no row tells.
    """

    row: Tensor
    classes: Tensor
    number: Tensor
    item: Tensor
    counts: Tensor


class PlaceScores(ClassScores):
    """Loss, accuracy and macro F1 over all labelled places, and their number."""

    def compute(self) -> dict[str, Tensor]:
        """Return loss, accuracy, macro_f1 and places; nothing for no places."""
        return {{"samples": "places"}.get(name, name): value for name, value in super().compute().items()}


class TokenLabelling(PlaceLabelling):
    """Train an encoder, or only a head on it, to tell the class of each place along an item: each frame of a sound, each note, each word.

    The tokens of an item at one place in time, such as the bands of a spectrogram's patches, are averaged to a row, which the head
    classifies. Rows are spread over the places: place p of P gets row floor(p * rows / P), which is its own where there is a row for each.
    Where labels say which tokens tell which place (``multimodal.windowed.PlaceColumn``: the notes of a piece), those of a place are
    averaged to its row, and each window of an item is a sequence of its own.

    The loss of an optimizer step is the mean cross-entropy over all its labelled places, over ranks and accumulated batches alike. Places
    of which nothing is shown, where the modality hides tokens (``multimodal.masking.Hiding``), do not count.

    Logs loss, accuracy and macro F1 (``val/macro_f1``) over the labelled places. ``predict`` writes the class of each place of an item as
    ``RUN/predictions/<modality>/<key>.npy``, int16; -1 at places that no token tells.

    Args:
        encoder: a new one, or one that was trained before (``multimodal.pretrained.load_encoder``).
        modalities: name -> builds the modality from the encoder's width: one ``multimodal.modality.Input``, whose transform reads labels.
        head: builds the head from the encoder's width, or is one.
        time_axis: which of the tokens' coordinates is time, along which places lie. 0: tokens in order of time (BEATs, AudioMAE,
            waveforms); 1: band by band (AST). It has no effect where labels say the place of each token.
        freeze_layers: the embeddings and so many first layers keep their weights, and their dropout is off; "all": the whole encoder does.
            0: nothing does.
        optimizer: builds the optimizer from parameter groups; biases, norms and the like are not decayed.
        schedule: builds the learning-rate schedule from the optimizer and the number of steps.
        layer_decay: the learning rate of a layer as a share of the next one's, in (0, 1]; None: the same for all.
        compile_encoder: compile the encoder's layers (``torch.compile``) when a fit starts.

    Raises:
        ValueError: a setting outside its range, or parts that do not fit each other; in training, a class that the head has no place for,
            labels that are not one for each place, or no labelled place in the first 50 batches, or in a whole epoch.
    """

    hides = True
    place, kind, reader = "place", "label file", "multimodal.tokenizers.audio.FrameLabelTransform"
    head: TokenClassifier

    def __init__(
        self,
        encoder: Encoder,
        modalities: dict[str, Callable[[int], Input]],
        head: Callable[[int], TokenClassifier] | TokenClassifier,
        time_axis: int = 0,
        freeze_layers: int | Literal["all"] = 0,
        optimizer: OptimizerCallable = default_optimizer,
        schedule: Callable[[Optimizer, int], LRScheduler] = WarmupCosine,
        layer_decay: float | None = None,
        compile_encoder: bool = False,
    ) -> None:
        super().__init__(encoder, modalities, optimizer, schedule, layer_decay, compile_encoder)
        if time_axis < 0:
            raise ValueError(f"time_axis must be at least 0, got {time_axis}.")
        self.time_axis = time_axis
        self.head = head if isinstance(head, TokenClassifier) else head(encoder.dim)
        if self.num_classes > MAX_CLASSES:
            raise ValueError(f"the head's num_classes must be at most {MAX_CLASSES}, got {self.num_classes}.")
        example = self.modality.transform.example()
        if time_axis and example is not None and example.ragged and example.labels is not None and example.labels.ndim == 2:
            raise ValueError(f"time_axis has no effect on {self.name}, whose labels say the place of each token: leave it out.")
        self._complete(freeze_layers, partial(PlaceScores, {self.name: self.num_classes}))

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Refuse classes that the head has no place for, before the device sees them.

        Raises:
            ValueError: see ``PlaceLabelling``.
        """
        told = {name: replace(own, labels=_classes(own)) if is_windowed(own) else own for name, own in batch.items.items()}
        super().on_before_batch_transfer(replace(batch, items=told), dataloader_idx)
        return batch

    def forward(self, items: Items, stage: str = "predict") -> Rows:
        """Return what the head says of the rows of items, of which tokens may be hidden in a stage.

        Raises:
            ValueError: the tokens' coordinates have no axis ``time_axis``.
        """
        seen = self.modality.seen(split_windows(items), self.modality.hiding_in(stage))
        vectors = self.encode({self.name: (seen.vectors, seen.item, seen.coordinates)}).tokens
        told: Tensor | slice
        if is_windowed(items):
            told, item, place = _told(items)
        else:
            if self.time_axis >= seen.coordinates.shape[1]:
                raise ValueError(f"time_axis is {self.time_axis}, but the tokens' coordinates have {seen.coordinates.shape[1]} axes.")
            told, item, place = slice(None), seen.tokens.item, seen.tokens.coordinates[:, self.time_axis]
        rows, owner, hidden = _rows(vectors, seen, told, item, place)
        return Rows(self.head(rows).float(), torch.bincount(owner, minlength=len(items)), hidden)

    def places(self, items: Items, rows: Rows) -> Places:
        """Return the places of items, and what rows tell of them.

        Raises:
            ValueError: there is no label for each place.
        """
        if is_windowed(items):
            return _told_places(items)
        labels, counts = self._labels(items)
        item = torch.repeat_interleave(counts, output_size=len(labels))
        index = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[item]
        return Places(row_of_places(rows.counts, counts), labels.long(), index, item, counts)

    def _terms(self, batch: Batch, stage: str) -> dict[tuple[str, int], Term]:
        return {(name, 0): self._term(items, stage) for name, items in batch.items.items()}

    def _term(self, items: Items, stage: str) -> Term:
        rows = self.forward(items, stage)
        places = self.places(items, rows)
        labelled = places.classes != NO_CLASS
        there = (labelled if rows.hidden is None else labelled & ~rows.hidden[places.row]).nonzero()[:, 0]
        logits, truth = rows.logits[places.row[there]], places.classes[there]
        loss, guesses = F.cross_entropy(logits, truth, reduction="sum"), logits.argmax(1)
        cast(PlaceScores, self._metric(stage)).update(self.name, loss, guesses, truth)
        count = torch.tensor(len(there), device=loss.device)
        return Term(loss, count=count, weight=1.0, correct=(guesses == truth).sum()[None], ids=guesses)

    def _labels(self, items: Items) -> tuple[Tensor, Tensor]:
        """Return the labels of all items end to end, ``(p,)``, and the number of places of each, ``(items,)``."""
        labels = cast(Tensor, items.labels)
        if items.lengths is None and labels.ndim == 2:
            return labels.flatten(), torch.full((len(items),), labels.shape[1], device=labels.device)
        if items.lengths is None or labels.ndim != 1 or len(labels) != int(items.lengths.sum()):
            raise ValueError(
                f"the labels of modality {self.name!r} have the shape {tuple(labels.shape)}, for values of {tuple(items.values.shape)}: "
                "there must be one for each place along an item, and a preparation must not change their number."
            )
        return labels, items.lengths

    def _unused(self, batch: Batch) -> Iterable[nn.Module]:
        return [self.modalities] if batch.items else [self.modalities, self.head]  # of the embedding in use, the vector of the mask

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, tuple[list[str], Tensor]]:
        """Write the class of each place of each item to ``RUN/predictions/<modality>/<key>.npy``."""
        for items in batch.items.values():
            rows = self.forward(items)
            places = self.places(items, rows)
            first = (places.counts.cumsum(0) - places.counts)[places.item]
            guesses = torch.full((int(places.counts.sum()),), NO_CLASS, dtype=torch.int16, device=first.device)
            guesses[first + places.number] = rows.logits.argmax(1)[places.row].to(torch.int16)
            for own, path in zip(guesses.cpu().split(places.counts.tolist()), self._files(batch, items, "npy"), strict=True):
                _write(own, path)
        if not batch.items:
            self._encode_nothing()
        return {}  # nothing that is to be joined with other batches: items differ in length

    def _shown(self, score: str) -> bool:
        return score in ("loss", "macro_f1")


def row_of_places(rows: Tensor, places: Tensor) -> Tensor:
    """Return the row of each place of all items end to end, ``(p,)`` int64: of place p of P the row floor(p * rows / P) of its item.

    Args:
        rows: ``(items,)`` int64, rows of each item, at least 1 where it has places.
        places: ``(items,)`` int64.
    """
    item = torch.repeat_interleave(places)
    place = torch.arange(len(item), device=places.device) - (places.cumsum(0) - places)[item]
    return (rows.cumsum(0) - rows)[item] + (place * rows[item]).div(places[item], rounding_mode="floor")


def _rows(vectors: Tensor, seen: Seen, told: Tensor | slice, item: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the means of the tokens of each place, the item of each row, and where nothing was seen of it; None: all was.

    Args:
        vectors: of the tokens that the encoder got.
        seen: what it was shown.
        told: of all tokens those that tell a place.
        item: of each of them.
        place: of each of them.
    """
    if seen.hidden is None:
        return *time_steps(vectors[told], item, place), None
    hidden = time_steps((~seen.hidden[told]).float()[:, None], item, place)[0][:, 0] == 0
    if seen.kept is None:
        return *time_steps(vectors[told], item, place), hidden
    every = vectors.new_zeros(len(seen.kept), vectors.shape[1]).masked_scatter(seen.kept[:, None], vectors)
    rows, owner = time_steps(every[told], item, place)
    share = time_steps(seen.kept[told].to(rows.dtype)[:, None], item, place)[0]  # of a place's tokens; the others count as zeros
    return rows / share.clamp(min=1e-6), owner, hidden


def _classes(items: Items) -> Tensor:
    return cast(Tensor, items.labels)[:, PlaceColumn.CLASS]


def _told(items: Items) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``(n,)`` bool, True at tokens that tell a place, and of these the item and the place of each."""
    labels, lengths = cast(Tensor, items.labels), cast(Tensor, items.lengths)
    told = labels[:, PlaceColumn.PLACE] >= 0
    return told, torch.repeat_interleave(lengths, output_size=len(labels))[told], labels[told, PlaceColumn.PLACE]


def _told_places(items: Items) -> Places:
    """Return the places that tokens tell, in the order of the items and of their numbers, which is that of the rows."""
    told, item, place = _told(items)
    labels, lengths = cast(Tensor, items.labels), cast(Tensor, items.lengths)
    span = int(labels[:, PlaceColumn.COUNT].max()) if len(labels) else 1
    found, row = (item * span + place).unique(return_inverse=True)
    classes = torch.full_like(found, NO_CLASS).scatter_reduce(0, row, _classes(items)[told], "amax")
    counts = labels[lengths.cumsum(0) - 1, PlaceColumn.COUNT]
    return Places(torch.arange(len(found), device=found.device), classes, found % span, found.div(span, rounding_mode="floor"), counts)


def _write(classes: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        np.save(file, classes.numpy(), allow_pickle=False)
