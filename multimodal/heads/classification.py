"""From the tokens of a sequence to classes.

Letters in shapes: n tokens, s sequences or samples, w width of the pooled vector, c classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.heads.pooling import Pool, Pooling, pool
from multimodal.nn import Encoded
from multimodal.nn.first_weights import initialize_linear
from multimodal.recorded import Recorded

HIDDEN = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}
NO_LABEL = -1


def hidden_layer(
    dim: int,
    hidden: str | None,
    hidden_dim: int | None = None,
    bias: bool = True,
    norm: Callable[[int], nn.Module] | None = None,
) -> tuple[nn.Module, int]:
    """Return a linear layer, its activation and a norm, or what does nothing; and how wide what comes out of it is.

    Args:
        dim: width of what goes in.
        hidden: name of the activation; None: no layer.
        hidden_dim: width of the layer; None: ``dim``.
        bias: of the linear layer.
        norm: builds the norm from the width; None: no norm.

    Raises:
        ValueError: ``hidden_dim`` is below 1, or set without a layer.
    """
    if hidden_dim is not None and (hidden is None or hidden_dim < 1):
        raise ValueError(
            f"hidden_dim must be at least 1, and has an effect only with a hidden layer: got {hidden_dim} and hidden {hidden}."
        )
    if hidden is None:
        return nn.Identity(), dim
    width = dim if hidden_dim is None else hidden_dim
    return nn.Sequential(nn.Linear(dim, width, bias=bias), HIDDEN[hidden](), norm(width) if norm else nn.Identity()), width


class Misfit(NamedTuple):
    """Labels of a sample that a head has no place for.

    Args:
        sample: its number.
        found: what is wrong.
        allowed: what would be right.
    """

    sample: int
    found: str
    allowed: str


class ClassificationHead(Recorded, nn.Module):
    """Pool, normalise, drop, and one linear layer to the classes (BEiT, ViT, MAE, AST, BEATs); or a hidden layer before it (BERT).

    Args:
        dim: width of the encoder.
        num_classes: number of classes or labels.
        pool: how the tokens of a sequence become one vector, see ``multimodal.heads.pool``; or builds a pooling that is learned from the
            width (MidiBERT: ``StructuredAttentionPooling``).
        norm: builds a norm of that vector from its width; None: no norm.
        hidden: activation of a hidden layer (BERT: "tanh"; ModernBERT: "gelu"; MidiBERT: "relu"); None: no hidden layer.
        hidden_norm: builds a norm after that activation from the width (ModernBERT); None: no norm.
        hidden_bias: whether the hidden layer has a bias. ModernBERT: no.
        dropout: share of the pooled vector dropped in training.
        init_scale: first weights are multiplied by this. BEiT: 0.001.
        hidden_dim: width of the hidden layer; None: that of the pooled vector. MidiBERT: 256.

    Raises:
        ValueError: a number below 1, or a setting of the hidden layer without one.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        pool: Pool | Callable[[int], Pooling] = "mean",
        norm: Callable[[int], nn.Module] | None = None,
        hidden: Literal["tanh", "relu", "gelu"] | None = None,
        hidden_norm: Callable[[int], nn.Module] | None = None,
        hidden_bias: bool = True,
        dropout: float = 0.0,
        init_scale: float = 1.0,
        hidden_dim: int | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}.")
        if hidden is None and hidden_norm is not None:
            raise ValueError("hidden_norm has an effect only with a hidden layer: set hidden, or leave it out.")
        self.num_classes, self.how = num_classes, pool if isinstance(pool, str) else None
        self.pooling = None if isinstance(pool, str) else pool(dim)
        width = dim if self.pooling is None else self.pooling.width
        self.norm = norm(width) if norm else nn.Identity()
        self.hidden, last = hidden_layer(width, hidden, hidden_dim, hidden_bias, hidden_norm)
        self.drop = nn.Dropout(dropout)
        self.proj = nn.Linear(last, num_classes)
        self.apply(initialize_linear)
        self.proj.weight.data.mul_(init_scale)

    def forward(
        self, encoded: Encoded, sequence: Int[Tensor, " n"], num_sequences: int | torch.SymInt, valid: Bool[Tensor, " n"] | None = None
    ) -> Float[Tensor, "s c"]:
        """Return the logits of each sequence; arguments as of ``multimodal.heads.pool``."""
        pooled = self.pooled(encoded, sequence, num_sequences, valid)
        return self.proj(self.drop(self.hidden(self.norm(pooled))))

    def pooled(
        self, encoded: Encoded, sequence: Int[Tensor, " n"], num_sequences: int | torch.SymInt, valid: Bool[Tensor, " n"] | None = None
    ) -> Float[Tensor, "s w"]:
        """Return the one vector of each sequence; arguments as of ``multimodal.heads.pool``."""
        if self.pooling is not None:
            return self.pooling(encoded, sequence, num_sequences, valid)
        assert self.how is not None
        return pool(encoded, sequence, num_sequences, self.how, valid)

    def told(self, labels: Tensor | None, num_samples: int) -> Tensor:
        """Return a row of labels for each sample, ``(s,)`` int64 and -1 where there is none.

        Args:
            labels: as a batch holds them; None: it holds none of them.
            num_samples: of the batch.
        """
        return torch.full((num_samples,), NO_LABEL, device=self.proj.weight.device) if labels is None else labels

    def labelled(self, labels: Tensor) -> Bool[Tensor, " s"]:
        """Return which samples have labels."""
        return labels.reshape(len(labels), -1)[:, 0] != NO_LABEL

    def misfit(self, labels: Tensor) -> Misfit | None:
        """Return the first sample with labels that there is no place for; None: all fit."""
        if labels.ndim != 1:
            return Misfit(0, "several labels", "is one; TaggingHead is for several")
        wrong = ((labels < NO_LABEL) | (labels >= self.num_classes)).nonzero()[:, 0].tolist()
        allowed = f"are 0 to {self.num_classes - 1}, and {NO_LABEL} for no label"
        return Misfit(wrong[0], f"label {int(labels[wrong[0]])}", allowed) if wrong else None

    def losses(self, logits: Float[Tensor, "s c"], labels: Tensor, label_smoothing: float = 0.0) -> Float[Tensor, " s"]:
        """Return the cross-entropy of each sample, all of which have labels.

        Args:
            logits: of the samples.
            labels: rows as ``told`` returns them.
            label_smoothing: share of the target spread evenly over all classes.
        """
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)

    def guesses(self, logits: Float[Tensor, "s c"]) -> Tensor:
        """Return what the scores compare with the labels: the most likely class of each sample."""
        return logits.argmax(1)

    def right(self, guesses: Tensor, labels: Tensor) -> Bool[Tensor, " s"]:
        """Return which samples are told as they are labelled."""
        return guesses == labels

    def predictions(self, name: str, logits: Float[Tensor, "s c"]) -> dict[str, Tensor]:
        """Return name of a file -> what is predicted: the probabilities of the classes, and the most likely one.

        Args:
            name: of the head.
            logits: of the samples.
        """
        return {name: logits.softmax(1), f"{name}_ids": logits.argmax(1)}

    def vectors(self, encoded: Encoded, sequence: Int[Tensor, " n"], num_sequences: int) -> dict[str, Tensor]:
        """Return name -> vectors ``(s, e)`` that are worth keeping beside the predictions; none by default. Arguments as of ``pool``."""
        return {}
