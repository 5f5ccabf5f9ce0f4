"""From hidden tokens to what was hidden: ids, or vectors.

Letters in shapes: m predicted tokens, d width, k fields, t width of a predicted vector.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.nn.first_weights import FirstWeights, initialize_linear
from multimodal.nn.mlp import ACTIVATIONS, Activation, activation
from multimodal.recorded import Recorded


class Prediction(NamedTuple):
    """Losses and guesses at the predicted tokens.

    Args:
        loss: ``(m,)`` float32, of each token. Ids: the cross-entropy, the weighted mean over its fields.
        ids: ``(m,)`` or ``(m, k)`` int64, the most likely ids; or ``(m, t)``, the vectors.
        correct: ``(m, k)`` bool; no fields for vectors.
        asked: ``(m, k)`` bool, True at the fields that were to be predicted; None: all.
    """

    loss: Tensor
    ids: Tensor
    correct: Tensor
    asked: Tensor | None = None


class TokenHead(Recorded, nn.Module, ABC):
    """Compares what it predicts for hidden tokens with what was hidden.

    Its constructor takes the width and the sizes of the target first.
    """

    @abstractmethod
    def predict(self, hidden: Tensor, truth: Tensor) -> Prediction:
        """Return losses and guesses for ``(m, d)``; ``truth`` as ``Target.forward`` makes it, at these tokens."""

    @abstractmethod
    def check(self, truth: Tensor) -> None:
        """Look whether what is to be predicted fits.

        Raises:
            ValueError: it does not.
        """


class TiedHead(TokenHead):
    """A head that knows itself how it shares weights with the embedding of its modality."""

    @abstractmethod
    def tie(self, embed: nn.Module) -> None:
        """Take weights of an embedding as its own.

        Raises:
            ValueError: they are not of its shapes.
        """


class PredictionHead(TokenHead):
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
        first_weights: how linear layers start, as in ``Encoder``. BEiT: "clipped_normal".
        width: of the hidden layer; None: ``dim``. ELECTRA's generator: the width of the table of words, which is its last layer.

    Raises:
        ValueError: as many weights as there are fields are needed; or a ``width`` without a hidden layer.
    """

    field_weights: Tensor

    def __init__(
        self,
        dim: int,
        vocab_sizes: Sequence[int],
        field_weights: Sequence[float] | None = None,
        norm: Callable[[int], nn.Module] | None = None,
        hidden_bias: bool = True,
        act: Activation = "gelu",
        first_weights: FirstWeights = "normal",
        width: int | None = None,
    ) -> None:
        super().__init__()
        if width is not None and (norm is None or width < 1):
            raise ValueError(f"width must be at least 1, and has an effect only with norm, got {width}.")
        weights = torch.tensor(vocab_sizes if field_weights is None else field_weights, dtype=torch.float32)
        if len(weights) != len(vocab_sizes):
            raise ValueError(f"field_weights has {len(weights)} entries for {len(vocab_sizes)} fields {tuple(vocab_sizes)}.")
        self.vocab_sizes = tuple(vocab_sizes)
        last = width or dim
        self.hidden = nn.Sequential(nn.Linear(dim, last, bias=hidden_bias), ACTIVATIONS[act](), norm(last)) if norm else nn.Identity()
        self.proj = nn.Linear(last, sum(vocab_sizes))
        self.register_buffer("field_weights", weights / weights.sum(), persistent=False)
        self.apply(partial(initialize_linear, first_weights=first_weights))

    @torch.no_grad()
    def weigh_fields(self, weights: Float[Tensor, " k"]) -> None:
        """Weigh the cross-entropies of the fields otherwise from now on. ``weights``: of each field, with the sum 1."""
        self.field_weights.copy_(weights)

    def forward(self, hidden: Float[Tensor, "m d"]) -> tuple[Tensor, ...]:
        """Return the logits of each field, ``(m, vocab_size)``."""
        return self.proj(self.hidden(hidden)).split(self.vocab_sizes, dim=-1)

    def predict(self, hidden: Float[Tensor, "m d"], ids: Int[Tensor, "m *k"]) -> Prediction:
        """Compare the predictions with the true ids; fields of -1 are not asked for: a token's loss is the mean over its others."""
        return self.compare(self(hidden), ids)

    def compare(self, logits: Sequence[Tensor], ids: Int[Tensor, "m *k"]) -> Prediction:
        """Compare the logits of each field, as ``forward`` returns them, with the true ids."""
        targets = ids if ids.ndim == 2 else ids[:, None]
        pairs = zip(logits, targets.unbind(1), strict=True)
        losses = torch.stack([F.cross_entropy(x.float(), t, reduction="none", ignore_index=-1) for x, t in pairs], 1)
        guesses, asked = torch.stack([x.argmax(-1) for x in logits], 1), targets >= 0
        weights = (self.field_weights * asked).sum(1).clamp(min=torch.finfo(torch.float32).tiny)
        loss = (losses * self.field_weights).sum(1) / weights  # a product of matrices would be rounded by autocast
        return Prediction(loss, guesses.view(ids.shape), guesses == targets, asked)

    def check(self, truth: Tensor) -> None:
        """Look whether ids are of the vocabularies; see ``TokenHead.check``."""
        if truth.is_floating_point():
            raise ValueError(f"its target gives vectors of {truth.shape[-1]} values, a PredictionHead predicts ids: leave head out.")
        largest = truth.view(len(truth), -1).amax(0).tolist()
        if len(largest) != len(self.vocab_sizes) or any(x >= size for x, size in zip(largest, self.vocab_sizes, strict=True)):
            raise ValueError(f"its tokenizer gives ids up to {tuple(largest)}, but the head's vocab_sizes are {self.vocab_sizes}.")


Distance = Literal["mse", "smooth_l1", "cosine", "l1"]


class RegressionHead(TokenHead):
    """One linear layer to a vector (MAE, EVA, data2vec).

    With ``norm`` a linear layer, an activation and that norm come before it (Mockingjay, TERA).

    Args:
        dim: width of the tokens.
        sizes: width of the vectors, alone.
        loss: of a token: the "mse", the mean over the vector of squared differences (MAE); "smooth_l1" (data2vec); "cosine", one less
            the cosine of the angle between the two (EVA, https://arxiv.org/abs/2211.07636); or "l1", the mean over the vector of
            differences, where those that are not asked for (NaN in the truth) count as 0: so all that are asked for weigh the same, in
            whatever tokens they are (TERA, https://arxiv.org/abs/2007.06028).
        beta: where "smooth_l1" turns from a square to a straight line. data2vec: 2.
        first_weights: how the layers start, as in ``Encoder``. MAE: "xavier_uniform".
        norm: builds the norm of a hidden layer from its width; None: no hidden layer.
        act: activation of the hidden layer.

    Raises:
        ValueError: an unknown loss, or several sizes.
    """

    def __init__(
        self,
        dim: int,
        sizes: Sequence[int],
        loss: Distance = "mse",
        beta: float = 2.0,
        first_weights: FirstWeights = "normal",
        norm: Callable[[int], nn.Module] | None = None,
        act: Activation = "gelu",
    ) -> None:
        super().__init__()
        if loss not in get_args(Distance):
            raise ValueError(f"loss must be one of {', '.join(get_args(Distance))}, got {loss!r}.")
        if len(sizes) != 1:
            raise ValueError(f"a vector has one width, got {tuple(sizes)}: several fields of ids are predicted by a PredictionHead.")
        self.loss, self.beta = loss, beta
        self.hidden = nn.Sequential(nn.Linear(dim, dim), activation(act), norm(dim)) if norm else nn.Identity()
        self.proj = nn.Linear(dim, sizes[0])
        self.apply(partial(initialize_linear, first_weights=first_weights))

    def forward(self, hidden: Float[Tensor, "m d"]) -> Float[Tensor, "m t"]:
        """Return the vectors."""
        return self.proj(self.hidden(hidden))

    def predict(self, hidden: Float[Tensor, "m d"], truth: Float[Tensor, "m t"]) -> Prediction:
        """Compare the predicted vectors with the true ones, in float32."""
        vectors = self(hidden)
        return Prediction(
            self._distance(vectors.float(), truth.float()), vectors.detach(), truth.new_zeros(len(truth), 0, dtype=torch.bool)
        )

    def _distance(self, vectors: Tensor, truth: Tensor) -> Tensor:
        if self.loss == "cosine":
            return 1 - F.cosine_similarity(vectors, truth, dim=-1)
        if self.loss == "mse":
            return F.mse_loss(vectors, truth, reduction="none").mean(-1)
        if self.loss == "l1":
            truth = torch.where(truth.isnan(), vectors.detach(), truth)  # before the difference: NaN would reach the gradients
            return F.l1_loss(vectors, truth, reduction="none").mean(-1)
        return F.smooth_l1_loss(vectors, truth, beta=self.beta, reduction="none").mean(-1)

    def check(self, truth: Tensor) -> None:
        """Look whether the vectors have the width; see ``TokenHead.check``."""
        if truth.shape[1:] != (self.proj.out_features,) or not truth.is_floating_point():
            raise ValueError(
                f"its target gives {truth.dtype} of shape {tuple(truth.shape[1:])}, the head vectors of {self.proj.out_features}."
            )
