"""Tell which tokens of a mixed sequence are of one item.

Letters in shapes: v visible tokens, d width, p width of the projection.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.modality import Modality
from multimodal.nn import Encoder, Packing, initialize_linear
from multimodal.objectives.objective import EncodedBatch, EncodedView, Objective, Term


class HomologousContrast(Objective):
    """Draw the tokens of one item together, against those of the items they are mixed with (MixedAE, https://arxiv.org/abs/2303.17152).

    Mixing alone makes reconstruction easier; this makes the encoder find out which patches belong together. For each visible token, the
    mean cross-entropy of finding the others of its item among those of its sequence, by cosine. It goes with ``MixedMasking`` and
    ``Drop``. Departures: MixedAE's top-k attention and segment embeddings are left out.

    Args:
        encoder: what is trained (filled in by the model).
        modalities: name -> modality (filled in by the model); those that do not mix items are left alone.
        width: of the projection in which tokens are compared.
        temperature: of the softmax.
        weight: of this objective against others, for one visible token against one prediction.

    Raises:
        ValueError: no modality mixes items; a temperature that is not positive.
    """

    suffix = "_homologous"

    def __init__(
        self, encoder: Encoder, modalities: Mapping[str, Modality], width: int = 128, temperature: float = 0.25, weight: float = 0.1
    ) -> None:
        super().__init__(encoder, modalities, weight)
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.mixed = [name for name, modality in modalities.items() if modality.masking.num_mixed > 1 and modality.decoder is not None]
        if not self.mixed:
            raise ValueError("HomologousContrast compares mixed items: give a modality MixedMasking, Drop and a decoder.")
        self.temperature = temperature
        self.proj = nn.Sequential(nn.Linear(encoder.dim, encoder.dim), nn.GELU(), nn.Linear(encoder.dim, width))
        self.proj.apply(initialize_linear)

    def forward(self, encoded: EncodedBatch) -> dict[str, Term]:
        """Return the term of each modality that mixes items."""
        return {name: self._term(view) for name, view in encoded.views.items() if name in self.mixed}

    def _term(self, view: EncodedView) -> Term:
        assert view.seen is not None and view.view.visible is not None
        visible = view.view.visible
        item, sequence = view.view.tokens.item[visible], view.view.sequence[visible]
        vectors = F.normalize(self.proj(view.seen).float(), dim=1)
        losses = self._losses(vectors, item, sequence)
        count = torch.tensor(len(losses), device=losses.device)
        weight = self.weight * view.modality.weight
        return Term(losses.sum(), count, weight, count.new_zeros(0), vectors.detach())

    def _losses(self, vectors: Tensor, item: Tensor, sequence: Tensor) -> Tensor:
        """Return the loss of each token that has others of its item, and others that are not, in its sequence."""
        packing = Packing.from_sequence(sequence)
        losses = []
        for own, items in zip(packing.blocks(packing.pack(vectors)), packing.blocks(packing.pack(item)), strict=True):
            same = items[:, :, None] == items[:, None, :]  # sequences, tokens, tokens
            itself = torch.eye(same.shape[1], dtype=torch.bool, device=same.device)
            scores = (own @ own.transpose(1, 2) / self.temperature).masked_fill(itself, float("-inf"))
            surprise = -(scores.log_softmax(-1)).masked_fill(itself, 0)
            friends = same & ~itself
            compared = friends.any(-1) & ~same.all(-1)
            losses.append(((surprise * friends).sum(-1) / friends.sum(-1).clamp(min=1))[compared])
        return torch.cat(losses) if losses else vectors.sum(1)
