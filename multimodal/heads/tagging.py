"""From the tokens of a sequence to labels of which it may have several.

Letters in shapes: s samples, c classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.heads.classification import NO_LABEL, ClassificationHead, Misfit
from multimodal.heads.pooling import Pool, Pooling


class TaggingHead(ClassificationHead):
    """Says of each class on its own whether it is there. The loss is the binary cross-entropy, a mean over the classes (AST, BEATs).

    A sample that is labelled with none of the classes is labelled, and learned from; one without labels is not. With ``pool`` "mean", no
    norm and no hidden layer the logits are the mean of the logits of the tokens, as BEATs computes them.

    Args:
        dim: width of the encoder.
        num_classes: number of labels.
        pool: how the tokens of a sequence become one vector, see ``multimodal.heads.pool``; or builds a learned pooling from the width.
        norm: builds a norm of that vector from its width; None: no norm.
        hidden: activation of a hidden layer; None: no hidden layer.
        hidden_norm: builds a norm after that activation from the width; None: no norm.
        hidden_bias: whether the hidden layer has a bias.
        dropout: share of the pooled vector dropped in training.
        init_scale: first weights are multiplied by this.
        positive_weight: weight of the classes that are there in the loss, above 0; those that are not have 1. Above 1: rare ones are found
            more often, and said more often where they are not.
        hidden_dim: width of the hidden layer; None: that of the pooled vector.

    Raises:
        ValueError: a setting outside its range.
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
        positive_weight: float = 1.0,
        hidden_dim: int | None = None,
    ) -> None:
        super().__init__(dim, num_classes, pool, norm, hidden, hidden_norm, hidden_bias, dropout, init_scale, hidden_dim)
        if positive_weight <= 0:
            raise ValueError(f"positive_weight must be above 0, got {positive_weight}.")
        self.positive_weight = positive_weight

    def told(self, labels: Tensor | None, num_samples: int) -> Tensor:
        """Return a row of labels for each sample, ``(s, c)`` int64: 1 where a class is there, 0 where not, -1 in a row without labels.

        Classes that the data do not know are nowhere.
        """
        if labels is None:
            return torch.full((num_samples, self.num_classes), NO_LABEL, device=self.proj.weight.device)
        missing = labels[:, :1].clamp(max=0).expand(-1, self.num_classes - labels.shape[1])
        return torch.cat([labels, missing], 1)

    def misfit(self, labels: Tensor) -> Misfit | None:
        """Return the first sample with labels that there is no place for; None: all fit."""
        if labels.ndim == 1:
            return Misfit(0, "one label", "are several; ClassificationHead is for one") if len(labels) else None
        if labels.shape[1] > self.num_classes:
            return Misfit(0, f"labels for {labels.shape[1]} classes", f"are at most {self.num_classes}")
        wrong = ((labels < NO_LABEL) | (labels > 1) | ((labels == NO_LABEL) != (labels[:, :1] == NO_LABEL))).any(1).nonzero()[:, 0].tolist()
        found = sorted(set(labels[wrong[0]].tolist())) if wrong else []
        return Misfit(wrong[0], f"labels of the values {found}", "are 0 and 1, or -1 alone for no labels") if wrong else None

    def losses(self, logits: Float[Tensor, "s c"], labels: Tensor, label_smoothing: float = 0.0) -> Float[Tensor, " s"]:
        """Return the binary cross-entropy of each sample, a mean over the classes.

        Args:
            logits: of the samples.
            labels: rows as ``told`` returns them.
            label_smoothing: e makes targets of e / 2 and 1 - e / 2: each class has two values, over which the share is spread evenly.
        """
        target = labels.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
        weight = logits.new_tensor(self.positive_weight)
        return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none").mean(1)

    def guesses(self, logits: Float[Tensor, "s c"]) -> Float[Tensor, "s c"]:
        """Return what the scores compare with the labels: the logits, since probabilities near 1 are rounded to one number."""
        return logits

    def right(self, guesses: Float[Tensor, "s c"], labels: Tensor) -> Bool[Tensor, " s"]:
        """Return which samples are told without a mistake: classes with a probability above one half are said to be there."""
        return ((guesses > 0) == (labels > 0)).all(1)

    def predictions(self, name: str, logits: Float[Tensor, "s c"]) -> dict[str, Tensor]:
        """Return the name of the head -> the probability of each class, each between 0 and 1 on its own."""
        return {name: logits.sigmoid()}
