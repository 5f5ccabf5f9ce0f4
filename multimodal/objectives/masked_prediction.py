"""Predict what was hidden.

Letters in shapes: m predicted tokens, k fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from multimodal.modality import Modality
from multimodal.nn import Encoder, Prediction, PredictionHead
from multimodal.objectives.objective import EncodedBatch, EncodedView, Objective, Term

FieldWeights = Literal["head", "validation"]
EVERYWHERE = "_everywhere"
LEAST_ACCURACY = 0.01


class MaskedPrediction(Objective):
    """Predict the target of each modality at its hidden tokens.

    Ids by cross-entropy (BERT, https://arxiv.org/abs/1810.04805; BEiT, https://arxiv.org/abs/2106.08254), or vectors by the distance that
    their head is set to (MAE, https://arxiv.org/abs/2111.06377; EVA, https://arxiv.org/abs/2211.07636).

    The head runs on the hidden positions only. With nothing hidden the loss is 0, still connected to the parameters.

    Tokens of several ids: the loss of a token is the weighted mean over the fields that are asked for. With ``field_weights: validation`` a
    field weighs as much as one over its accuracy in the last validation of the run, at first all weigh the same, and they sum to 1: so what
    is hard gets more (Adversarial-MidiBERT, https://arxiv.org/abs/2407.08306, ``pretrain.py``). The validation split then has a part in
    training, and ``val/loss`` is not comparable from epoch to epoch: compare accuracies, and report the test split.

    Args:
        encoder: what is trained (filled in by the model).
        modalities: name -> modality (filled in by the model).
        weight: of this objective against others.
        everywhere: weight of one more prediction at *every* token but marks, hidden or shown, against that at a hidden one; 0: there is
            none. Adversarial-MidiBERT adds the mean over all to the mean over the hidden ones: that is the share that is hidden, 0.15. The
            scores are called ``<modality>_everywhere``.
        field_weights: "head": as the head is set to; or "validation".

    Raises:
        ValueError: a weight outside its range; ``everywhere`` with a modality whose hidden tokens a decoder predicts; "validation" where no
            modality predicts several ids a token.
    """

    def __init__(
        self,
        encoder: Encoder,
        modalities: Mapping[str, Modality],
        weight: float = 1.0,
        everywhere: float = 0.0,
        field_weights: FieldWeights = "head",
    ) -> None:
        super().__init__(encoder, modalities, weight)
        if everywhere < 0:
            raise ValueError(f"everywhere must be at least 0, got {everywhere}.")
        if field_weights not in get_args(FieldWeights):
            raise ValueError(f"field_weights must be one of {', '.join(get_args(FieldWeights))}, got {field_weights!r}.")
        decoded = [name for name, modality in modalities.items() if modality.decoder is not None]
        if everywhere and decoded:
            raise ValueError(f"everywhere needs what the encoder makes of every token, but a decoder predicts modality {decoded[0]!r}.")
        self.everywhere, self.sees_all = everywhere, everywhere > 0
        followed = _of_several_fields(modalities) if field_weights == "validation" else {}
        if field_weights == "validation" and not followed:
            raise ValueError("field_weights 'validation' weighs the ids of a token against each other, but no modality predicts several.")
        self.followed = dict(followed)
        for name, fields in followed.items():
            self.register_buffer(f"field_weights_{name}", torch.full((len(fields),), 1 / len(fields)))

    def forward(self, encoded: EncodedBatch) -> dict[str, Term]:
        """Return the term of each modality, and that of all its tokens."""
        terms = {}
        for name, view in encoded.views.items():
            if name in self.followed:
                cast(PredictionHead, view.modality.head).weigh_fields(self._weights(name))
            weight = self.weight * view.modality.weight
            terms[name] = Term.of(view.prediction, weight)
            if self.everywhere:
                terms[name + EVERYWHERE] = Term.of(_of_all(view), weight * self.everywhere)
        return terms

    def fields(self, modalities: Mapping[str, Modality]) -> dict[str, tuple[str, ...]]:
        """Return the fields of each modality's ids."""
        found = {name: modality.field_names for name, modality in modalities.items()}
        return found | ({name + EVERYWHERE: fields for name, fields in found.items()} if self.everywhere else {})

    @torch.no_grad()
    def after_validation(self, scores: Mapping[str, Tensor]) -> None:
        """Weigh fields by how badly they were predicted."""
        for name, fields in self.followed.items():
            accuracy = torch.tensor([float(scores.get(f"accuracy/{name}_{field}", torch.nan)) for field in fields])
            weights = self._weights(name)
            weights.copy_(weights_of(accuracy.to(weights), weights))

    def _weights(self, name: str) -> Tensor:
        return cast(Tensor, getattr(self, f"field_weights_{name}"))


def weights_of(accuracy: Float[Tensor, " k"], before: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Return weights that sum to 1: one over the accuracy of each field, taken as 0.01 at least, normalised.

    Args:
        accuracy: of each field; NaN where nothing was asked: such fields keep the weight that they had, and the others share the rest.
        before: the weights so far.
    """
    told = ~accuracy.isnan()
    inverse = torch.where(told, 1 / accuracy.clamp(min=LEAST_ACCURACY), 0.0)
    rest = 1 - before[~told].sum()
    return torch.where(told, inverse / inverse.sum().clamp(min=1e-9) * rest, before)


def _of_several_fields(modalities: Mapping[str, Modality]) -> dict[str, tuple[str, ...]]:
    """Return modality name -> names of the ids of a token, where there are several and a head that can weigh them."""
    found = {name: x.field_names for name, x in modalities.items() if isinstance(x.head, PredictionHead)}
    return {name: fields for name, fields in found.items() if len(fields) > 1}


def _of_all(view: EncodedView) -> Prediction:
    """Return what the head makes of all tokens but marks."""
    assert view.seen is not None
    marks, targets = view.view.tokens.marks, view.view.targets
    asked = slice(None) if marks is None else ~marks
    return view.modality.head.predict(view.seen[asked], targets[asked])
