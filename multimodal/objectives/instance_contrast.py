"""Tell which views are of one sample.

Letters in shapes: v visible tokens, s sequences, d width, p width of the projection.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.modality import Modality
from multimodal.nn import Encoder, initialize_linear, pool_mean
from multimodal.objectives.objective import EncodedBatch, EncodedView, Objective, Term


class InstanceContrast(Objective):
    """Draw together what the encoder makes of the views of one sample, against the other samples of the batch.

    The loss of a view is the cross-entropy of finding the other one among all views of the batch, by the cosine of projections (SimCLR's
    NT-Xent, https://arxiv.org/abs/2002.05709; of more than two, the mean over the others). Views are the differently prepared ones of
    ``MaskedPretraining(views=2)``, and a modality's ``clones``, which differ in what is hidden. It reads the mean and the maximum of the
    tokens that the encoder got: with ``Drop`` the visible ones, so a part of one view has to be enough to find a part of the other.
    Samples of other processes are not compared with, and there is no batch norm in the projection, so a loss does not depend on them.

    Args:
        encoder: what is trained (filled in by the model).
        modalities: name -> modality (filled in by the model); each is compared by itself.
        hidden: width inside the projection, which has two layers.
        width: of the projection.
        temperature: of the softmax.
        weight: of this objective against others, for one view against one prediction.

    Raises:
        ValueError: a temperature that is not positive, or a modality that mixes items.
    """

    suffix = "_contrast"
    sees_all = True

    def __init__(
        self,
        encoder: Encoder,
        modalities: Mapping[str, Modality],
        hidden: int = 256,
        width: int = 128,
        temperature: float = 0.2,
        weight: float = 1.0,
    ) -> None:
        super().__init__(encoder, modalities, weight)
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        if mixing := [name for name, modality in modalities.items() if modality.masking.num_mixed > 1]:
            raise ValueError(f"InstanceContrast compares samples, but modality {mixing[0]!r} mixes them.")
        self.temperature = temperature
        layers = {name: nn.Sequential(nn.Linear(2 * encoder.dim, hidden), nn.GELU(), nn.Linear(hidden, width)) for name in modalities}
        self.proj = nn.ModuleDict(layers).apply(initialize_linear)

    def forward(self, encoded: EncodedBatch) -> dict[str, Term]:
        """Return the term of each modality; none where samples have one view, as in validation."""
        views = encoded.batch.views
        return {name: self._term(name, view, views) for name, view in encoded.views.items() if views * view.modality.clones > 1}

    def _term(self, name: str, encoded: EncodedView, views: int) -> Term:
        assert encoded.seen is not None
        visible = encoded.view.visible
        of_token = encoded.view.sequence if visible is None else encoded.view.sequence[visible]
        sequences, number = of_token.unique(return_inverse=True)
        vectors = F.normalize(self.proj[name](_mean_and_maximum(encoded.seen, number, len(sequences))).float(), dim=1)
        losses = contrast(vectors, sequences // (views * encoded.modality.clones), self.temperature)
        count = torch.tensor(len(losses), device=losses.device)
        return Term(losses.sum(), count, self.weight * encoded.modality.weight, count.new_zeros(0), vectors.detach())


def contrast(vectors: Float[Tensor, "s p"], sample: Int[Tensor, " s"], temperature: float) -> Float[Tensor, " c"]:
    """Return the loss of each vector that has others of its sample, and others that are not.

    Args:
        vectors: of length 1.
        sample: that each is of.
        temperature: of the softmax over all others.
    """
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    same = sample[:, None] == sample
    surprise = -(vectors @ vectors.T / temperature).masked_fill(itself, -torch.inf).log_softmax(1)
    friends = same & ~itself
    compared = friends.any(1) & ~same.all(1)
    return (surprise.masked_fill(~friends, 0).sum(1) / friends.sum(1).clamp(min=1))[compared]


def _mean_and_maximum(tokens: Float[Tensor, "v d"], sequence: Int[Tensor, " v"], count: int) -> Float[Tensor, "s w"]:
    """Return ``(s, 2 d)``; each sequence has tokens."""
    highest = tokens.new_zeros(count, tokens.shape[1])
    highest = highest.scatter_reduce(0, sequence[:, None].expand_as(tokens), tokens, "amax", include_self=False)
    return torch.cat([pool_mean(tokens, sequence, count), highest], 1)
