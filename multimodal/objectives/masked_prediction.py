"""Predict what was hidden."""

from __future__ import annotations

from collections.abc import Mapping

from multimodal.modality import Modality
from multimodal.objectives.objective import EncodedBatch, Objective, Term


class MaskedPrediction(Objective):
    """Predict the target of each modality at its hidden tokens.

    Ids by cross-entropy (BERT, https://arxiv.org/abs/1810.04805; BEiT, https://arxiv.org/abs/2106.08254), or vectors by the distance that
    their head is set to (MAE, https://arxiv.org/abs/2111.06377; EVA, https://arxiv.org/abs/2211.07636).

    The head runs on the hidden positions only. With nothing hidden the loss is 0, still connected to the parameters.

    Args:
        encoder: what is trained (filled in by the model).
        modalities: name -> modality (filled in by the model).
        weight: of this objective against others.
    """

    def forward(self, encoded: EncodedBatch) -> dict[str, Term]:
        """Return the term of each modality."""
        return {name: Term.of(view.prediction, self.weight * view.modality.weight) for name, view in encoded.views.items()}

    def fields(self, modalities: Mapping[str, Modality]) -> dict[str, tuple[str, ...]]:
        """Return the fields of each modality's ids."""
        return {name: modality.field_names for name, modality in modalities.items()}
