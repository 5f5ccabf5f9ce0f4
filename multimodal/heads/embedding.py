"""One vector for each sequence that tells who or what it is of: speakers, languages.

Letters in shapes: n tokens, s sequences, e width of an embedding, c classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.heads.classification import ClassificationHead
from multimodal.heads.pooling import pool
from multimodal.heads.statistics import AttentiveStatistics
from multimodal.nn import Encoded, LayerNorm
from multimodal.nn.first_weights import initialize_linear


class EmbeddingHead(ClassificationHead):
    """Pool, normalise, and one linear layer to an embedding, whose direction is compared with one of each class.

    The logits are scaled cosines. In training the true class must win by a margin, so that embeddings of one class lie together, and those
    of classes that were never seen can be told apart by their cosine (``multimodal.heads.verification``). Margin of the cosine: AM-Softmax
    (https://arxiv.org/abs/1801.05599); of the angle: ArcFace (https://arxiv.org/abs/1801.07698), which speaker recognition uses most.

    Args:
        dim: width of the encoder.
        num_classes: number of classes in training.
        embedding_dim: width of the embedding. ECAPA-TDNN: 192.
        pooling: "attentive": mean and deviation of tokens weighed by a learned layer; "statistics": of all alike (x-vectors); "mean".
        attention_dim: width of that layer; of no effect without it.
        norm: builds the norm of the pooled vector from its width; None: no norm.
        scale: what cosines are multiplied by.
        margin: what the true class must win by in training, of the cosine or in radians; 0: none. Usual: 0.2.
        margin_of: "angle" or "cosine".
        dropout: share of the pooled vector dropped in training.

    Raises:
        ValueError: a size below 1, a scale that is not positive, a margin outside [0, 1), or an unknown word.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        embedding_dim: int = 192,
        pooling: Literal["attentive", "statistics", "mean"] = "attentive",
        attention_dim: int = 128,
        norm: Callable[[int], nn.Module] | None = LayerNorm,
        scale: float = 30.0,
        margin: float = 0.2,
        margin_of: Literal["angle", "cosine"] = "angle",
        dropout: float = 0.0,
    ) -> None:
        if embedding_dim < 1 or attention_dim < 1:
            raise ValueError(f"embedding_dim and attention_dim must be at least 1, got {embedding_dim} and {attention_dim}.")
        if scale <= 0 or not 0 <= margin < 1:
            raise ValueError(f"scale must be positive and margin in [0, 1), got {scale} and {margin}.")
        if pooling not in ("attentive", "statistics", "mean") or margin_of not in ("angle", "cosine"):
            raise ValueError(
                "pooling must be 'attentive', 'statistics' or 'mean', and margin_of 'angle' or 'cosine', "
                f"got {pooling!r} and {margin_of!r}."
            )
        width = dim if pooling == "mean" else 2 * dim
        super().__init__(width, num_classes, norm=norm, dropout=dropout)
        self.statistics = None if pooling == "mean" else AttentiveStatistics(dim, attention_dim if pooling == "attentive" else None)
        self.embed = nn.Linear(width, embedding_dim)
        self.proj = nn.Linear(embedding_dim, num_classes, bias=False)  # a direction of each class
        self.scale, self.margin, self.margin_of = scale, margin, margin_of
        self.embed.apply(initialize_linear)
        nn.init.xavier_normal_(self.proj.weight)

    def embeddings(
        self, encoded: Encoded, sequence: Int[Tensor, " n"], num_sequences: int | torch.SymInt, valid: Bool[Tensor, " n"] | None = None
    ) -> Float[Tensor, "s e"]:
        """Return the embedding of each sequence, of length 1; arguments as of ``multimodal.heads.pool``."""
        if self.statistics is None:
            pooled = pool(encoded, sequence, num_sequences, "mean", valid)
        else:
            pooled = self.statistics(encoded.tokens, sequence, num_sequences, valid)
        return F.normalize(self.embed(self.drop(self.norm(pooled))).float(), dim=1)

    def forward(
        self, encoded: Encoded, sequence: Int[Tensor, " n"], num_sequences: int | torch.SymInt, valid: Bool[Tensor, " n"] | None = None
    ) -> Float[Tensor, "s c"]:
        """Return the logits of each sequence, cosines times ``scale``; arguments as of ``multimodal.heads.pool``."""
        return self.logits(self.embeddings(encoded, sequence, num_sequences, valid))

    def vectors(self, encoded: Encoded, sequence: Int[Tensor, " n"], num_sequences: int) -> dict[str, Tensor]:
        """Return the embeddings, which ``multimodal predict`` writes as ``<head>_embeddings.npy``."""
        return {"embeddings": self.embeddings(encoded, sequence, num_sequences)}

    def logits(self, embeddings: Float[Tensor, "s e"]) -> Float[Tensor, "s c"]:
        """Return the logits of embeddings, which have length 1."""
        with torch.autocast(embeddings.device.type, enabled=False):  # a cosine in bfloat16 is known to one percent
            return self.scale * F.linear(embeddings, F.normalize(self.proj.weight.float(), dim=1))

    def losses(self, logits: Float[Tensor, "s c"], labels: Tensor, label_smoothing: float = 0.0) -> Float[Tensor, " s"]:
        """Return the cross-entropy of each sample, in training with the margin; arguments as of ``ClassificationHead``."""
        return super().losses(self.with_margin(logits, labels) if self.training and len(labels) else logits, labels, label_smoothing)

    def with_margin(self, logits: Float[Tensor, "s c"], classes: Int[Tensor, " s"]) -> Float[Tensor, "s c"]:
        """Return logits for the cross-entropy of training: those of the true classes are lowered by the margin.

        Past the angle where the margin would turn round, the cosine falls on with the slope of a line (as InsightFace has it).
        """
        cosine = (logits.gather(1, classes[:, None]) / self.scale).clamp(-1, 1)
        if self.margin_of == "cosine":
            lowered = cosine - self.margin
        else:
            sine = (1 - cosine.square()).clamp(min=1e-12).sqrt()
            turned = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
            beyond = cosine - self.margin * math.sin(self.margin)
            lowered = torch.where(cosine > -math.cos(self.margin), turned, beyond)
        return logits.scatter(1, classes[:, None], self.scale * lowered)
