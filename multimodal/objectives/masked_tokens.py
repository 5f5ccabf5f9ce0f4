"""Predict the ids of hidden tokens.

Letters in shapes: n tokens, m predicted tokens, k fields, d width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from multimodal.modality import MaskedView, Modality


@dataclass(frozen=True)
class EncodedView:
    """One modality of a batch after the encoder.

    Args:
        modality: its parts.
        view: what was hidden.
        hidden: ``(m, d)``, the encoder's output for the tokens that were hidden, in their order; for the others it is not computed.
    """

    modality: Modality
    view: MaskedView
    hidden: Tensor


@dataclass(frozen=True)
class Term:
    """A sum of losses over predictions, with what it takes to average and to report it.

    Args:
        loss: scalar, the sum over all predictions.
        count: int64 scalar, the number of predictions.
        weight: of one prediction in the total, which is the weighted mean over all predictions of all terms.
        correct: ``(k,)`` int64, right guesses of each field.
        ids: ``(m,)`` or ``(m, k)`` int64, the guesses.
    """

    loss: Tensor
    count: Tensor
    weight: float
    correct: Tensor
    ids: Tensor


class Objective(ABC):
    """A summand of the pretraining loss."""

    @abstractmethod
    def __call__(self, encoded: EncodedView) -> Term:
        """Return the term of one modality."""


class MaskedTokens(Objective):
    """Cross-entropy of the ids at hidden positions (BERT, https://arxiv.org/abs/1810.04805; BEiT, https://arxiv.org/abs/2106.08254).

    The head runs on the hidden positions only. With nothing hidden the loss is 0, still connected to the parameters.

    Args:
        weight: of this objective against others.
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def __call__(self, encoded: EncodedView) -> Term:
        """Return the term of one modality."""
        index = encoded.view.masked.nonzero()[:, 0]
        prediction = encoded.modality.head.predict(encoded.hidden, encoded.view.ids[index])
        return Term(
            loss=prediction.loss.sum(),
            count=torch.tensor(len(index), device=index.device),
            weight=self.weight * encoded.modality.weight,
            correct=prediction.correct.sum(0),
            ids=prediction.ids,
        )
