"""From hidden tokens to the ids that were hidden.

Letters in shapes: m predicted tokens, d width, k fields.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.nn.block import initialize_linear
from multimodal.nn.mlp import ACTIVATIONS, Activation
from multimodal.recorded import Recorded


class Prediction(NamedTuple):
    """Losses and guesses at the predicted tokens.

    Args:
        loss: ``(m,)`` float32, cross-entropy of each token, the weighted mean over its fields.
        ids: ``(m,)`` or ``(m, k)`` int64, the most likely ids.
        correct: ``(m, k)`` bool.
    """

    loss: Tensor
    ids: Tensor
    correct: Tensor


class PredictionHead(Recorded, nn.Module):
    """One linear layer to the vocabulary of each field (BEiT, MidiBERT); all fields share one product.

    With ``norm`` a linear layer, an activation and that norm come before it (BERT, ModernBERT, FLAVA).

    Args:
        dim: width of the tokens.
        vocab_sizes: number of ids of each field; one entry for tokens with a single id.
        field_weights: weight of each field's cross-entropy; None weighs by vocabulary size, as MidiBERT does. They are normalised to
            sum to 1.
        norm: builds the norm of a hidden layer from its width; None: no hidden layer.
        hidden_bias: whether the hidden layer has a bias. ModernBERT: no.
        act: activation of the hidden layer.
    """

    def __init__(
        self,
        dim: int,
        vocab_sizes: Sequence[int],
        field_weights: Sequence[float] | None = None,
        norm: Callable[[int], nn.Module] | None = None,
        hidden_bias: bool = True,
        act: Activation = "gelu",
    ) -> None:
        super().__init__()
        weights = torch.tensor(vocab_sizes if field_weights is None else field_weights, dtype=torch.float32)
        if len(weights) != len(vocab_sizes):
            raise ValueError(f"field_weights has {len(weights)} entries for {len(vocab_sizes)} fields {tuple(vocab_sizes)}.")
        self.vocab_sizes = tuple(vocab_sizes)
        self.hidden = nn.Sequential(nn.Linear(dim, dim, bias=hidden_bias), ACTIVATIONS[act](), norm(dim)) if norm else nn.Identity()
        self.proj = nn.Linear(dim, sum(vocab_sizes))
        self.register_buffer("field_weights", weights / weights.sum(), persistent=False)
        self.apply(initialize_linear)

    def forward(self, hidden: Float[Tensor, "m d"]) -> tuple[Tensor, ...]:
        """Return the logits of each field, ``(m, vocab_size)``."""
        return self.proj(self.hidden(hidden)).split(self.vocab_sizes, dim=-1)

    def predict(self, hidden: Float[Tensor, "m d"], ids: Int[Tensor, "m *k"]) -> Prediction:
        """Compare the predictions with the true ids."""
        targets = ids if ids.ndim == 2 else ids[:, None]
        logits = self(hidden)
        losses = torch.stack([F.cross_entropy(x.float(), t, reduction="none") for x, t in zip(logits, targets.unbind(1), strict=True)], 1)
        guesses = torch.stack([x.argmax(-1) for x in logits], 1)
        loss = (losses * self.field_weights).sum(1)  # a product of matrices would be rounded by autocast
        return Prediction(loss, guesses.view(ids.shape), guesses == targets)
