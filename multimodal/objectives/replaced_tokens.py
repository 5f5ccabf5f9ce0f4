"""Tell replaced tokens from original ones.

Letters in shapes: n tokens, m hidden ones, k fields, d width of the encoder, g width of the generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.batch import Batch
from multimodal.masking.noise import uniform
from multimodal.modality import MaskedView, Modality
from multimodal.nn import Encoder, Prediction, PredictionHead, initialize_linear
from multimodal.objectives.objective import EncodedBatch, EncoderInput, Objective, Term

DRAWN = 21
"""Stream of the noise that ids are drawn with; those of further fields follow."""
GENERATOR = "_generator"


@dataclass(frozen=True, kw_only=True)
class ReplacedView(MaskedView):
    """The items of one modality with drawn ids at the hidden tokens.

    Args:
        prediction: of the hidden ids by the generator.
        replaced: ``(n,)`` bool, True where an id is shown that is not the original one.
    """

    prediction: Prediction
    replaced: Tensor


class ReplacedTokenDetection(Objective):
    """Tell for every token whether it is the original or was replaced by a small generator (ELECTRA, https://arxiv.org/abs/2003.10555).

    The generator is an encoder that learns to predict hidden ids, as in ``MaskedPrediction``: it reads the modality's own embedding through
    a linear layer, and a second one leads to the modality's head. At each hidden token an id is drawn from what it predicts, and the
    encoder reads the result; no gradient goes through what is drawn. Of every token but marks a head of two layers says whether it was
    replaced; a drawn id that happens to be the original one counts as original. What is drawn is a function of the items' seeds.

    It takes the place of ``MaskedPrediction``. The generator, its layers and the head stay behind when the encoder is exported, and so do
    the modality's heads. Scores: ``<modality>`` for the detection, ``<modality>_generator`` for the generator's ids.

    Args:
        encoder: what is trained (filled in by the model).
        modalities: name -> modality (filled in by the model); what they embed must be the ids that are predicted.
        generator: the generator's encoder; best a quarter to a half as wide as the encoder.
        detection: weight of one token's detection against one hidden token's prediction. ELECTRA weighs the two *means* 50 to 1; with 15%
            of the tokens hidden that is 50 * 0.15 = 7.5 for one token (25%: 12.5).
        weight: of this objective against others.

    Raises:
        ValueError: a weight that is not positive; a modality whose embedding does not read the ids that are predicted, which drops hidden
            tokens, mixes items or draws pictures of what its head predicts; or a head that predicts no ids.
    """

    sees_all = True
    takes_heads = True

    def __init__(
        self,
        encoder: Encoder,
        modalities: Mapping[str, Modality],
        generator: Encoder,
        detection: float = 7.5,
        weight: float = 1.0,
    ) -> None:
        super().__init__(encoder, modalities, weight)
        if detection <= 0:
            raise ValueError(f"detection must be positive, got {detection}.")
        for name, modality in modalities.items():
            _check(name, modality)
        self.generator, self.detection, self._modalities = generator, detection, dict(modalities)  # no parts of its own
        self.narrow = nn.Linear(encoder.dim, generator.dim)
        self.widen = nn.Linear(generator.dim, encoder.dim)
        self.heads = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(encoder.dim, encoder.dim), nn.GELU(), nn.Linear(encoder.dim, 1)) for name in modalities}
        )
        for part in (self.narrow, self.widen, self.heads):
            part.apply(initialize_linear)

    def shown(self, batch: Batch, views: Mapping[str, MaskedView], encoder: Encoder) -> Mapping[str, MaskedView]:
        """Return the views with ids of the generator at the hidden tokens, and no mask."""
        parts = [
            (self.narrow(self._modalities[name].embed(view.tokens, view.shown_as_mask)), view.sequence, view.tokens.coordinates)
            for name, view in views.items()
        ]
        masked = [view.masked for view in views.values()]
        hidden = self.widen(self.generator(*EncoderInput.join(parts)[:3], wanted=torch.cat(masked)).tokens)
        return {
            name: _with_drawn(self._modalities[name], view, own, self._modalities[name].seeds(batch.items[name]))
            for (name, view), own in zip(views.items(), hidden.split([int(own.sum()) for own in masked]), strict=True)
        }

    def forward(self, encoded: EncodedBatch) -> dict[str, Term]:
        """Return two terms for each modality: the detection, and what the generator predicts."""
        terms = {}
        for name, view in encoded.views.items():
            weight, own = self.weight * view.modality.weight, cast(ReplacedView, view.view)
            assert view.seen is not None
            terms[name] = Term.of(self._detected(name, own, view.seen), weight * self.detection)
            terms[name + GENERATOR] = Term.of(own.prediction, weight)
        return terms

    def _detected(self, name: str, view: ReplacedView, seen: Float[Tensor, "n d"]) -> Prediction:
        """Return, for every token but marks, the loss and whether it is told to be a replaced one."""
        asked = torch.ones_like(view.masked) if view.tokens.marks is None else ~view.tokens.marks
        logits, truth = self.heads[name](seen[asked])[:, 0].float(), view.replaced[asked]
        loss = F.binary_cross_entropy_with_logits(logits, truth.float(), reduction="none")
        guesses = logits > 0
        return Prediction(loss, guesses.long(), (guesses == truth)[:, None])

    def fields(self, modalities: Mapping[str, Modality]) -> dict[str, tuple[str, ...]]:
        """Return whether a token was replaced, and the fields of the generator's ids."""
        generated = {name + GENERATOR: modality.field_names for name, modality in modalities.items()}
        return {**dict.fromkeys(modalities, ("replaced",)), **generated}


def draw(logits: Float[Tensor, "m v"], noise: Float[Tensor, " m"]) -> Int[Tensor, " m"]:
    """Return an id of each row, drawn from the softmax of its logits.

    Args:
        logits: of the ids.
        noise: uniform in [0, 1), what decides.
    """
    below = logits.float().softmax(-1).cumsum(-1)
    found = torch.searchsorted(below, noise[:, None] * below[:, -1:], right=True)[:, 0]  # the first above
    return found.clamp(max=logits.shape[1] - 1)  # where the product was rounded up to the last


def _with_drawn(modality: Modality, view: MaskedView, hidden: Float[Tensor, "m d"], seed: Int[Tensor, " items"]) -> ReplacedView:
    if view.tokens.inputs.shape != view.targets.shape:
        raise ValueError(
            "ReplacedTokenDetection shows drawn ids in place of what is embedded, of shape "
            f"{tuple(view.tokens.inputs.shape[1:])} for each token, but what is predicted is of {tuple(view.targets.shape[1:])}."
        )
    head, masked = cast(PredictionHead, modality.head), view.masked
    logits = head(hidden)
    with torch.no_grad():
        item, position = view.tokens.item[masked], view.tokens.position[masked]
        drawn = [draw(x, uniform(seed[item], position, DRAWN + number)) for number, x in enumerate(logits)]
        inputs = view.tokens.inputs.clone()
        filled = torch.stack(drawn, 1).view(-1, *inputs.shape[1:])
        inputs[masked] = filled if view.asked is None else torch.where(view.asked[masked], filled, inputs[masked])
        differs = (inputs != view.targets).view(len(inputs), -1).any(1)
    given = {field.name: getattr(view, field.name) for field in fields(view)}
    changed = {"tokens": view.tokens.with_inputs(inputs), "shown_as_mask": torch.zeros_like(masked)}
    return ReplacedView(**given | changed, prediction=head.compare(logits, view.truth), replaced=differs)


def _check(name: str, modality: Modality) -> None:
    """Refuse a modality whose tokens cannot be replaced."""
    wrong = {
        "its embedding does not read the ids that are predicted": not modality.values_are_ids,
        "its head predicts no ids": not isinstance(modality.head, PredictionHead),
        "it has a decoder": modality.decoder is not None,
        "it mixes items": modality.masking.num_mixed > 1,
        "its renderer would draw what its head, which is the generator's here, makes of the encoder's tokens": modality.renderer
        is not None,
    }
    if reasons := [reason for reason, found in wrong.items() if found]:
        raise ValueError(f"ReplacedTokenDetection cannot replace tokens of modality {name!r}: {reasons[0]}.")
