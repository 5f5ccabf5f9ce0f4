"""Make the class token know the whole sequence."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from multimodal.modality import Modality
from multimodal.nn import Branch, Encoder
from multimodal.objectives.objective import EncodedBatch, Objective, Term


class ClassAggregation(Objective):
    """Predict the hidden ids once more, from the last class token and the tokens of an early layer (BEiT v2, arXiv 2208.06366).

    A few more layers run on them. What an early layer does not know yet must come through the class token. Final norm and prediction
    head are those of the main prediction; the layers are thrown away after pretraining.

    Args:
        encoder: what is trained (filled in by the model); it has a class token and no registers.
        modalities: name -> modality (filled in by the model); none drops hidden tokens.
        early_layer: how many layers the tokens have passed through, from 1. BEiT v2: 9 of 12, 21 of 24.
        depth: layers that run on them. BEiT v2: 2.
        weight: of this objective against others. BEiT v2: as much as the main prediction.

    Raises:
        ValueError: layers that the encoder does not have; an encoder without class token, or with experts or registers; a modality with a
            decoder.
    """

    suffix = "_from_class"

    def __init__(
        self, encoder: Encoder, modalities: Mapping[str, Modality], early_layer: int = 9, depth: int = 2, weight: float = 1.0
    ) -> None:
        super().__init__(encoder, modalities, weight)
        if early_layer < 1 or depth < 1 or early_layer + depth > encoder.depth:
            raise ValueError(
                f"early_layer and depth must be at least 1, and their sum at most the encoder's depth, {encoder.depth}: the new layers "
                f"stand in for those after the early one; got {early_layer} and {depth}."
            )
        if encoder.special is None or encoder.special.count > 1 or encoder.num_experts > 1:
            raise ValueError("ClassAggregation needs an encoder with a class token, without registers and experts: set class_token.")
        decoded = [name for name, modality in modalities.items() if modality.decoder is not None]
        if decoded:
            raise ValueError(f"ClassAggregation predicts from the encoder's tokens, but modality {decoded[0]!r} has a decoder.")
        self.layers = self.early, self.last = early_layer - 1, encoder.depth - 1
        self.branch = Branch(encoder, range(early_layer, early_layer + depth))

    def forward(self, encoded: EncodedBatch) -> dict[str, Term]:
        """Return the term of each modality."""
        given, class_token = encoded.given, encoded.layers[self.last].class_token  # before the final norm
        assert class_token is not None
        early = encoded.layers[self.early].tokens
        hidden_ones = torch.cat([view.view.masked for view in encoded.views.values()])
        hidden = self.branch(encoded.encoder, class_token, early, given.sequence, given.coordinates, hidden_ones)
        terms = {}
        parts = hidden.split([len(view.hidden) for view in encoded.views.values()])
        for (name, view), own in zip(encoded.views.items(), parts, strict=True):
            terms[name] = Term.of(view.modality.head.predict(own, view.truth), self.weight * view.modality.weight)
        return terms

    def fields(self, modalities: Mapping[str, Modality]) -> dict[str, tuple[str, ...]]:
        """Return the fields of each modality's ids."""
        return {name: modality.field_names for name, modality in modalities.items()}
