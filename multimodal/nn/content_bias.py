"""What queries and keys add to the logits beside their product, depending on how far apart they are.

Letters in shapes: g sequences of a group, p places, q places or 1, l length, h heads, k heads or 1, e width of a head, a axes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

LEAST_BIAS = -1e4
"""What is below hides a token and is no bias of positions: it must not be scaled, as -inf times 0 is not a number."""


class ContentBias(nn.Module, ABC):
    """Makes a layer's bias of the logits from queries, keys, places and the bias of positions."""

    @abstractmethod
    def forward(
        self,
        query: Float[Tensor, "g h l e"],
        key: Float[Tensor, "g h l e"],
        places: Shaped[Tensor, "p l a"] | None,
        bias: Float[Tensor, "q k l l"] | None,
    ) -> Float[Tensor, "g h l l"]:
        """Return what is added to the logits; ``bias``, what positions and masks add, is to be included."""


class GatedBias(ContentBias):
    """Each query scales the bias of positions by a gate ("gated relative position bias": WavLM, https://arxiv.org/abs/2110.13900; BEATs).

    A linear layer makes 8 numbers of the query of a head, before the scaling of attention; their sums by fours, through a sigmoid, are a
    and b; the gate is ``a * (b * scale - 1) + 2``. (unilm ``beats/backbone.py``.)

    Args:
        num_heads: number of heads.
        head_dim: width of a head.
    """

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(head_dim, 8)
        self.scale = nn.Parameter(torch.ones(num_heads))

    def forward(self, query: Tensor, key: Tensor, places: Tensor | None, bias: Tensor | None) -> Float[Tensor, "g h l l"]:
        """Gate the bias.

        Raises:
            ValueError: the encoder has no position bias.
        """
        if bias is None:
            raise ValueError("GatedBias scales the encoder's position bias: give the encoder one (bias: multimodal.nn.BucketedBias).")
        sums = self.linear(query).unflatten(-1, (2, 4)).sum(-1).sigmoid()  # g h l 2
        a, b = sums.unbind(-1)
        gate = a * (b * self.scale[:, None] - 1) + 2
        positions = bias.clamp(min=LEAST_BIAS)
        return torch.addcmul(bias - positions, gate[..., None], positions)  # the difference is what hides tokens


class RelativeKeyQuery(ContentBias):
    """A learned vector for each distance, multiplied with query and with key (https://arxiv.org/abs/2009.13658; MidiBERT).

    It is BERT's "relative_key_query". The distance is that of the tokens' indices in their sequence, query minus key. All heads share the
    vectors.

    Args:
        num_heads: number of heads.
        head_dim: width of a head.
        max_length: most tokens of a sequence.
    """

    reads_order = True

    def __init__(self, num_heads: int, head_dim: int, max_length: int = 512) -> None:
        super().__init__()
        self.max_length = max_length
        self.distances = nn.Parameter(torch.empty(2 * max_length - 1, head_dim))
        nn.init.trunc_normal_(self.distances, std=0.02)

    def forward(self, query: Tensor, key: Tensor, places: Tensor | None, bias: Tensor | None) -> Float[Tensor, "g h l l"]:
        """Return both products, scaled as the logits are.

        Raises:
            ValueError: a sequence is longer than ``max_length``.
        """
        length = query.shape[2]
        if length > self.max_length:
            raise ValueError(f"a sequence has {length} tokens; the relative positions of attention end at max_length {self.max_length}.")
        near = self.distances[self.max_length - length : self.max_length + length - 1].to(query.dtype)  # distances 1 - l .. l - 1
        by_query = _by_difference(query, near.flip(0))
        by_key = _by_difference(key, near).transpose(-1, -2)
        own = (by_query + by_key) / math.sqrt(query.shape[-1])
        return own if bias is None else own + bias


def _by_difference(x: Float[Tensor, "g h l e"], vectors: Float[Tensor, "m e"]) -> Float[Tensor, "g h l l"]:
    """Multiply each row with the vectors of all columns, which are those of the differences column - row, 1 - l .. l - 1."""
    length = x.shape[2]
    products = (x @ F.pad(vectors, (0, 0, 0, 1)).T).flatten(2)  # rows of 2 l, read as rows of 2 l - 1: each moves by one
    return products[..., : length * (2 * length - 1)].unflatten(-1, (length, 2 * length - 1))[..., length - 1 :]
