"""What a summand of the pretraining loss is given, and what it returns.

Letters in shapes: n tokens of all modalities, m predicted ones of one modality, v visible ones of it, s sequences, k fields, d width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.batch import Batch
from multimodal.modality import MaskedView, Modality
from multimodal.nn import Encoded, Encoder, Prediction

Part = tuple[Tensor, Tensor, Tensor]
"""The tokens of one modality: embedded ``(n, d)``, the sequence of each ``(n,)``, the coordinates of each ``(n, axes)``."""


class EncoderInput(NamedTuple):
    """Tokens of all modalities, as an encoder takes them.

    Args:
        tokens: ``(n, d)``.
        sequence: ``(n,)`` int64.
        coordinates: ``(n, axes)``.
        expert: ``(n,)`` int64, or None for encoders without experts.
    """

    tokens: Tensor
    sequence: Tensor
    coordinates: Tensor
    expert: Tensor | None = None

    @classmethod
    def join(cls, parts: Iterable[Part], experts: Iterable[int] | None = None) -> EncoderInput:
        """Put tokens of several modalities end to end.

        Args:
            parts: at least one.
            experts: the expert of each part; None: the encoder has none.
        """
        vectors, sequences, coordinates = zip(*parts, strict=True)
        axes = max(x.shape[1] for x in coordinates)
        places = torch.cat([F.pad(x, (0, axes - x.shape[1])) for x in coordinates])  # missing axes are 0
        expert = None if experts is None else torch.cat([torch.full_like(x, e) for x, e in zip(sequences, experts, strict=True)])
        return cls(torch.cat(vectors), torch.cat(sequences), places, expert)


@dataclass(frozen=True)
class EncodedView:
    """One modality of a batch after the encoder.

    Args:
        modality: its parts.
        view: what was hidden.
        hidden: ``(m, width)``, what to predict from, for the tokens that were hidden, in their order: the output of the encoder, or of the
            decoder.
        seen: ``(v, d)``, the encoder's output for the tokens that it was given; None where it was asked for hidden ones alone: nothing
            drops hidden tokens, and no objective ``sees_all``.
    """

    modality: Modality
    view: MaskedView
    hidden: Tensor
    seen: Tensor | None = None

    @cached_property
    def truth(self) -> Tensor:
        """``(m, ...)``, what was hidden; see ``MaskedView.truth``."""
        return self.view.truth

    @cached_property
    def prediction(self) -> Prediction:
        """What the modality's head makes of the hidden tokens, computed once for all who ask."""
        return self.modality.head.predict(self.hidden, self.truth)


@dataclass(frozen=True)
class EncodedBatch:
    """A batch after the encoder.

    Args:
        batch: what was encoded.
        views: modality name -> its part.
        encoder: what encoded it.
        given: what the encoder was given: of modalities that drop hidden tokens the visible ones.
        wanted: ``(n,)`` bool, True at the tokens of ``given`` that the encoder's output holds.
        encoded: the output.
        layers: layer -> all tokens after it, before the final norm, for the layers that objectives asked for; of the last of all layers
            those wanted.
    """

    batch: Batch
    views: Mapping[str, EncodedView]
    encoder: Encoder
    given: EncoderInput
    wanted: Tensor
    encoded: Encoded
    layers: Mapping[int, Encoded]


@dataclass(frozen=True)
class Term:
    """A sum of losses over predictions, with what it takes to average and to report it.

    Args:
        loss: scalar, the sum over all predictions.
        count: int64 scalar, the number of predictions.
        weight: of one prediction in the total, which is the weighted mean over all predictions of all terms.
        correct: ``(k,)`` int64, right guesses of each field; no fields where vectors are predicted.
        ids: ``(m,)`` or ``(m, k)`` int64, the guesses; ``(m, size)``, the vectors.
        asked: ``(k,)`` int64, how often each field was to be predicted; None: ``count`` times.
    """

    loss: Tensor
    count: Tensor
    weight: float
    correct: Tensor
    ids: Tensor
    asked: Tensor | None = None

    @classmethod
    def of(cls, prediction: Prediction, weight: float) -> Term:
        """Return the term of predictions of equal weight."""
        count = torch.tensor(len(prediction.loss), device=prediction.loss.device)
        asked = None if prediction.asked is None else prediction.asked.sum(0)
        return cls(prediction.loss.sum(), count, weight, prediction.correct.sum(0), prediction.ids, asked)


class Objective(nn.Module, ABC):
    """A summand of the pretraining loss. Its parts exist for pretraining only, and never reach an exported encoder.

    Args:
        encoder: what is trained (filled in by the model); it is read here, and given again with each batch.
        modalities: name -> modality (filled in by the model).
        weight: of this objective against others.

    Raises:
        ValueError: a weight that is not positive.
    """

    suffix: ClassVar[str] = ""
    """What its scores are called after the modality's name."""
    layers: tuple[int, ...] = ()
    """Layers of the encoder whose tokens it wants to see."""
    sees_all: bool = False
    """Whether it reads the encoder's output of tokens that are not hidden (``EncodedView.seen``)."""
    needs_whole_model: ClassVar[bool] = False
    """Whether it works on whole weights, and so not where these are cut into shards."""
    epoch: int = 0
    """The epoch that is trained, from 0 (filled in by the model)."""
    takes_heads: ClassVar[bool] = False
    """Whether the modalities' heads read from a part of its own instead of the encoder, and so are of no use with it later."""

    def __init__(self, encoder: Encoder, modalities: Mapping[str, Modality], weight: float = 1.0) -> None:
        super().__init__()
        if weight <= 0:
            raise ValueError(f"weight must be positive, got {weight}; leave an objective out to not train on it.")
        self.weight = weight

    def shown(self, batch: Batch, views: Mapping[str, MaskedView], encoder: Encoder) -> Mapping[str, MaskedView]:
        """Return what is hidden and shown of a batch, before it is encoded; an objective may change it. As it is by default."""
        return views

    @abstractmethod
    def forward(self, encoded: EncodedBatch) -> dict[str, Term]:
        """Return modality name -> term, for the modalities of the batch."""

    def fields(self, modalities: Mapping[str, Modality]) -> dict[str, tuple[str, ...]]:
        """Return modality name -> the fields whose accuracy its terms tell; by default none."""
        return dict.fromkeys(modalities, ())

    def after_step(self, encoder: Encoder, modalities: Mapping[str, Modality], step: int) -> None:
        """Follow the model once it has moved. ``step``: optimizer steps that are done."""

    def memory(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps of it besides its weights, such as tensors that grow; by default nothing."""
        return {}

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        """Take over the ``memory`` of a checkpoint; nothing where it has none."""

    def after_validation(self, scores: Mapping[str, Tensor]) -> None:
        """Follow a validation of a run of training. ``scores``: name (``accuracy/<modality>``) -> value, over all ranks."""
