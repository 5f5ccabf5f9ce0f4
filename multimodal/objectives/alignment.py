"""Tell whether the two halves of a sequence belong together.

Letters in shapes: n tokens of a modality, v of them that the encoder was given, m labelled ones, d width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.modality import Modality
from multimodal.nn import Encoder, initialize_linear
from multimodal.objectives.objective import EncodedBatch, EncodedView, Objective, Term


class Alignment(Objective):
    """Classify, from the encoder's output at labelled tokens, whether what they begin belongs together (VideoBERT, arXiv 1904.01766).

    A linear layer tells class 0, aligned, from class 1, not aligned: the order of BERT's task of next sentences. What is labelled, the
    transform says (``Item.labels``, -1 where nothing is): the first token of a sequence. Sequences are seen as they are for masked
    prediction, partly hidden.

    The loss is the weighted mean over all predictions, so that one sequence weighs as much as ``weight`` hidden tokens. BERT adds the means
    of both tasks: that is a weight of the hidden tokens of a batch by its labelled sequences.

    Args:
        encoder: what is trained (filled in by the model).
        modalities: name -> modality (filled in by the model); those whose items have no labels are left alone.
        weight: of one labelled token against one hidden token.

    Raises:
        ValueError: a weight that is not positive; in training, labels that are not one for each token, or above 1.
    """

    suffix = "_alignment"
    sees_all = True

    def __init__(self, encoder: Encoder, modalities: Mapping[str, Modality], weight: float = 1.0) -> None:
        super().__init__(encoder, modalities, weight)
        self.proj = nn.Linear(encoder.dim, 2)
        initialize_linear(self.proj)

    def forward(self, encoded: EncodedBatch) -> dict[str, Term]:
        """Return the term of each modality whose items are labelled."""
        labels = {name: encoded.batch.items[name].labels for name in encoded.views}
        return {name: self._term(name, view, found) for name, view in encoded.views.items() if (found := labels[name]) is not None}

    def logits(self, tokens: Float[Tensor, "m d"]) -> Float[Tensor, "m 2"]:
        """Return the logits of aligned and not aligned, float32, from the encoder's output at the first tokens of sequences."""
        return self.proj(tokens).float()

    def _term(self, name: str, view: EncodedView, labels: Int[Tensor, " items"]) -> Term:
        assert view.seen is not None
        tokens, visible = view.view.tokens, view.view.visible
        labels = labels.repeat(view.modality.clones)
        if labels.shape != (len(tokens.inputs),) or (len(labels) and int(labels.max()) > 1):
            raise ValueError(
                f"labels of modality {name!r} have the shape {tuple(labels.shape)} for {len(tokens.inputs)} tokens: Alignment needs one "
                "for each token, 0, 1 or -1."
            )
        labels = (labels if visible is None else labels[visible]).long()
        there = (labels >= 0).nonzero()[:, 0]
        logits, truth = self.logits(view.seen[there]), labels[there]
        loss, guesses = F.cross_entropy(logits, truth, reduction="sum"), logits.argmax(1)
        count = torch.tensor(len(there), device=loss.device)
        return Term(loss, count, self.weight * view.modality.weight, (guesses == truth).sum()[None], guesses)

    def fields(self, modalities: Mapping[str, Modality]) -> dict[str, tuple[str, ...]]:
        """Return one field for each modality."""
        return dict.fromkeys(modalities, ("aligned",))
