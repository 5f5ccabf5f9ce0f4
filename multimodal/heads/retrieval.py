"""Embeddings of items, and how similar those of two kinds are: one vector for each item, or one for each of its tokens.

Letters in shapes: n tokens, s sequences, m vectors of all items, d width of the encoder, e width of an embedding, q items of the first
kind, c of the second.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from multimodal.heads.pooling import POOLS, Pool, pool
from multimodal.nn import Encoded
from multimodal.nn.first_weights import initialize_linear
from multimodal.recorded import Recorded

AT_ONCE = 2**24
"""Products of tokens that late interaction holds at a time."""


@dataclass(frozen=True)
class Embeddings:
    """Vectors of items, end to end.

    Args:
        vectors: ``(m, e)``.
        lengths: ``(items,)`` int64, the number of vectors of each item.
    """

    vectors: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def of_items(cls, vectors: Float[Tensor, "m e"]) -> Embeddings:
        """Return embeddings of one vector each."""
        return cls(vectors, torch.ones(len(vectors), dtype=torch.int64, device=vectors.device))

    @classmethod
    def join(cls, parts: Sequence[Embeddings]) -> Embeddings:
        """Put embeddings end to end; there is at least one part."""
        return cls(torch.cat([part.vectors for part in parts]), torch.cat([part.lengths for part in parts]))

    @property
    def item(self) -> Int[Tensor, " m"]:
        """The item of each vector."""
        return torch.repeat_interleave(self.lengths, output_size=len(self.vectors))

    def select(self, index: Int[Tensor, " items"]) -> Embeddings:
        """Return some items, in the order of their numbers ``index``."""
        starts, lengths = self.lengths.cumsum(0) - self.lengths, self.lengths[index]
        item = torch.repeat_interleave(lengths)
        place = torch.arange(len(item), device=item.device) - (lengths.cumsum(0) - lengths)[item]
        return Embeddings(self.vectors[starts[index][item] + place], lengths)

    def to(self, device: torch.device | str) -> Embeddings:
        """Return them on another device."""
        return Embeddings(self.vectors.to(device), self.lengths.to(device))

    def blocks(self, size: int) -> list[Embeddings]:
        """Return them in parts of ``size`` items, the last of which may have fewer."""
        counts = [int(part.sum()) for part in self.lengths.split(size)]
        return [Embeddings(*both) for both in zip(self.vectors.split(counts), self.lengths.split(size), strict=True)] if counts else []


Similarity = Callable[[Embeddings, Embeddings], Tensor]
"""Embeddings of items of a first and of a second kind -> how similar each is to each, ``(q, c)`` float32."""


def turned(similarity: Similarity) -> Similarity:
    """Return the same similarity with the items of the second kind first."""
    return lambda second, first: similarity(first, second).T


def inner_products(first: Embeddings, second: Embeddings) -> Float[Tensor, "q c"]:
    """Return the inner products of embeddings of one vector each: cosines, where these have length 1."""
    with torch.autocast(first.vectors.device.type, enabled=False):  # a cosine in bfloat16 is known to one percent
        return first.vectors.float() @ second.vectors.float().T


def max_similarity(first: Embeddings, second: Embeddings, average: bool = False) -> Float[Tensor, "q c"]:
    """Return, for each vector of a first item, its largest inner product with one of a second, and their sum (MaxSim).

    The products are made in blocks, and made again for the gradient, so that memory does not grow with the number of pairs of tokens.

    Args:
        first: questions; those without vectors are as similar as 0 to all.
        second: answers; those without vectors are as similar as 0 to all.
        average: the mean instead of the sum. It ranks answers to a question alike, and lets long and short questions be compared.
    """
    longest = int(second.lengths.max()) if len(second) else 0
    if longest == 0:
        return first.vectors.new_zeros(len(first), len(second), dtype=torch.float32)
    size = max(1, AT_ONCE // max(1, len(first.vectors) * longest))
    best = torch.cat([_best(first.vectors, block) for block in second.blocks(size)], 1)
    total = best.new_zeros(len(first), len(second)).index_add(0, first.item, best)
    return total / first.lengths.clamp(min=1)[:, None] if average else total


def _best(vectors: Tensor, block: Embeddings) -> Tensor:
    """Return the largest product of each vector with one of each item, ``(n, c)``."""
    padded = pad_sequence(list(block.vectors.split(block.lengths.tolist())), batch_first=True)  # c l e
    valid = torch.arange(padded.shape[1], device=padded.device) < block.lengths[:, None]
    if padded.shape[1] == 0:
        return vectors.new_zeros(len(vectors), len(block), dtype=torch.float32)
    if torch.is_grad_enabled() and (vectors.requires_grad or padded.requires_grad):
        return checkpoint(_largest, vectors, padded, valid, use_reentrant=False)
    return _largest(vectors, padded, valid)


def _largest(vectors: Tensor, padded: Tensor, valid: Tensor) -> Tensor:
    with torch.autocast(vectors.device.type, enabled=False):
        products = (vectors.float() @ padded.float().flatten(0, 1).T).unflatten(1, padded.shape[:2])  # n c l
    best = products.masked_fill(~valid, -torch.inf).amax(2)
    return best.masked_fill(~valid.any(1), 0.0)


class RetrievalHead(Recorded, nn.Module, ABC):
    """From what an encoder says to embeddings that are compared. Its constructor takes the width first."""

    skips_marks: ClassVar[bool] = False
    """Whether tokens that say nothing themselves, such as the start of a text, get no vector."""

    @abstractmethod
    def embeddings(
        self, encoded: Encoded, sequence: Int[Tensor, " n"], num_sequences: int, valid: Bool[Tensor, " n"] | None = None
    ) -> Embeddings:
        """Return the embeddings of sequences, of length 1; arguments as of ``multimodal.heads.pool``, sequences one after the other."""

    @abstractmethod
    def similarity(self, first: Embeddings, second: Embeddings) -> Float[Tensor, "q c"]:
        """Return how similar each of the first is to each of the second."""

    def forward(
        self, encoded: Encoded, sequence: Int[Tensor, " n"], num_sequences: int, valid: Bool[Tensor, " n"] | None = None
    ) -> Float[Tensor, "m e"]:
        """Return the vectors of ``embeddings``."""
        return self.embeddings(encoded, sequence, num_sequences, valid).vectors


class PooledEmbedding(RetrievalHead):
    """One vector for each item, compared by its cosine (CLIP, https://arxiv.org/abs/2103.00020).

    Args:
        dim: width of the encoder.
        embedding_dim: width of a linear projection, without bias, of the pooled vector; None: none, the pooled vector itself, as
            Sentence-BERT (https://arxiv.org/abs/1908.10084) has it.
        pooling: how tokens become one vector: see ``multimodal.heads.pool``.
        norm: builds a norm of the pooled vector from its width; None: no norm.

    Raises:
        ValueError: a width below 1, or an unknown pooling.
    """

    def __init__(
        self, dim: int, embedding_dim: int | None = None, pooling: Pool = "mean", norm: Callable[[int], nn.Module] | None = None
    ) -> None:
        super().__init__()
        if embedding_dim is not None and embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, or None for no projection, got {embedding_dim}.")
        if pooling not in POOLS:
            raise ValueError(f"pooling must be one of {', '.join(POOLS)}, got {pooling!r}.")
        self.pooling = pooling
        self.norm = norm(dim) if norm else nn.Identity()
        self.proj = nn.Identity() if embedding_dim is None else nn.Linear(dim, embedding_dim, bias=False)
        if isinstance(self.proj, nn.Linear):
            nn.init.normal_(self.proj.weight, std=dim**-0.5)  # as CLIP: the width of what is projected must not decide its length

    def embeddings(
        self, encoded: Encoded, sequence: Int[Tensor, " n"], num_sequences: int, valid: Bool[Tensor, " n"] | None = None
    ) -> Embeddings:
        """Return one vector for each sequence; zeros for one without tokens."""
        pooled = pool(encoded, sequence, num_sequences, self.pooling, valid)
        return Embeddings.of_items(F.normalize(self.proj(self.norm(pooled)).float(), dim=1))

    def similarity(self, first: Embeddings, second: Embeddings) -> Float[Tensor, "q c"]:
        """Return the cosines."""
        return inner_products(first, second)


class LateInteraction(RetrievalHead):
    """One vector for each token; a first item asks with each of its own for the most similar of a second (ColBERT, arXiv 2004.12832).

    Departures: questions are not filled up with masks, and the marks of a text get no vector. Class and register tokens of the encoder get
    none either.

    Args:
        dim: width of the encoder.
        embedding_dim: width of the vectors. ColBERT: 128.
        average: an item's similarity is the mean over its vectors (FILIP, https://arxiv.org/abs/2111.07783), not their sum (ColBERT).
            Answers to a question are ranked alike; questions to an answer are not, as a sum favours long ones.

    Raises:
        ValueError: a width below 1.
    """

    skips_marks = True

    def __init__(self, dim: int, embedding_dim: int = 128, average: bool = True) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, got {embedding_dim}.")
        self.average = average
        self.proj = nn.Linear(dim, embedding_dim, bias=False)
        self.apply(initialize_linear)

    def embeddings(
        self, encoded: Encoded, sequence: Int[Tensor, " n"], num_sequences: int, valid: Bool[Tensor, " n"] | None = None
    ) -> Embeddings:
        """Return a vector for each valid token of each sequence."""
        tokens, sequence = (encoded.tokens, sequence) if valid is None else (encoded.tokens[valid], sequence[valid])
        lengths = torch.bincount(sequence, minlength=num_sequences)
        return Embeddings(F.normalize(self.proj(tokens).float(), dim=1), lengths)

    def similarity(self, first: Embeddings, second: Embeddings) -> Float[Tensor, "q c"]:
        """Return MaxSim; see ``max_similarity``."""
        return max_similarity(first, second, self.average)
