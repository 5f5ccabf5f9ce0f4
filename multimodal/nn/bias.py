"""What the places of two tokens add to the logits of their attention.

Letters in shapes: p places, q places or 1 where all have the same bias, l length, a axes, h heads.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

NUM_SPECIAL_ROWS = 3


class PositionBias(nn.Module, ABC):
    """Adds a number to the logits of attention for each pair of places and each head.

    Class and register tokens have the coordinates -1.

    Args:
        num_heads: of the attention.
    """

    reads_order: ClassVar[bool] = False
    """Whether it depends on the order in which tokens are given, and not on their places alone."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def check(self, coordinates: Shaped[Tensor, "n a"]) -> None:
        """Refuse coordinates that the bias cannot serve; called once per batch, outside of compiled code."""

    @abstractmethod
    def forward(self, places: Shaped[Tensor, "p l a"]) -> Float[Tensor, "q h l l"]:
        """Return the bias of each query (third axis) to each key (last axis)."""


class RelativeBias2d(PositionBias):
    """A learned number for each difference of rows and columns and each head (BEiT, https://arxiv.org/abs/2106.08254; Swin).

    Three more rows of the table stand, as in unilm ``beit/modeling_finetune.py``, for a special token (class, register) that looks at any
    token, for any token that looks at a special one, and for a special token that looks at a special one.

    Args:
        num_heads: of the attention.
        window: rows and columns of the grid, which tokens must lie on.

    Raises:
        ValueError: a window that is not of two positive numbers; or, when called, tokens without two whole coordinates.
    """

    def __init__(self, num_heads: int, window: Sequence[int] = (14, 14)) -> None:
        super().__init__(num_heads)
        if len(window) != 2 or min(window) < 1:
            raise ValueError(f"window must be rows and columns of a grid, at least 1 each, got {tuple(window)}.")
        self.window = rows, columns = int(window[0]), int(window[1])
        self.table = nn.Parameter(torch.zeros((2 * rows - 1) * (2 * columns - 1) + NUM_SPECIAL_ROWS, num_heads))

    def check(self, coordinates: Shaped[Tensor, "n a"]) -> None:
        """Refuse places that are outside the window.

        Raises:
            ValueError: there are such places, or they are not two whole numbers.
        """
        self._check_kind(coordinates)
        beyond = coordinates >= torch.tensor(self.window, device=coordinates.device)
        if len(coordinates) and not coordinates.is_meta and bool(beyond.any()):  # the device "meta" holds no values
            extent = tuple((coordinates.amax(0) + 1).tolist())
            raise ValueError(
                f"tokens lie on a grid of {extent}, the relative bias has a window of {self.window}: set window, or resize the bias of a "
                "pretrained encoder (multimodal.pretrained.resize)."
            )

    def index(self, places: Int[Tensor, "p l 2"]) -> Int[Tensor, "p l l"]:
        """Return the row of the table for each query and key."""
        rows, columns = self.window
        special = (places < 0).any(-1)  # p l
        difference = places[:, :, None] - places[:, None]  # p l l 2
        index = (difference[..., 0] + rows - 1) * (2 * columns - 1) + difference[..., 1] + columns - 1
        first_special = len(self.table) - NUM_SPECIAL_ROWS
        query, key = special[:, :, None], special[:, None]
        index = torch.where(query, first_special, index)
        index = torch.where(key, first_special + 1, index)
        return torch.where(query & key, first_special + 2, index)

    def forward(self, places: Shaped[Tensor, "p l a"]) -> Float[Tensor, "p h l l"]:
        """Look up the table."""
        self._check_kind(places)
        index = self.index(places)
        return self.table[index.flatten()].unflatten(0, index.shape).permute(0, 3, 1, 2)  # (p l l) h -> p h l l

    def _check_kind(self, coordinates: Tensor) -> None:
        if coordinates.shape[-1] != 2 or coordinates.is_floating_point():
            raise ValueError(
                f"RelativeBias2d needs tokens with 2 whole coordinates (row, column), got {coordinates.shape[-1]} of {coordinates.dtype}."
            )


class BucketedBias(PositionBias):
    """A learned number for each bucket of distances along a sequence and each head (T5, https://arxiv.org/abs/1910.10683; BEATs).

    Half of the buckets are for keys after the query, half for those before. Half of each are single distances, the others grow
    with the logarithm of the distance up to ``max_distance``. The distance is that of the tokens' indices in their sequence.

    Args:
        num_heads: of the attention.
        num_buckets: of both signs together, a multiple of 4. BEATs: 320; T5: 32.
        max_distance: from here on all distances share a bucket; more than a quarter of ``num_buckets``. BEATs: 800; T5: 128.

    Raises:
        ValueError: numbers that leave no buckets.
    """

    reads_order = True

    def __init__(self, num_heads: int, num_buckets: int = 320, max_distance: int = 800) -> None:
        super().__init__(num_heads)
        if num_buckets < 4 or num_buckets % 4:
            raise ValueError(f"num_buckets must be a positive multiple of 4, got {num_buckets}.")
        if max_distance <= num_buckets // 4:
            raise ValueError(f"max_distance must be more than a quarter of num_buckets {num_buckets}, got {max_distance}.")
        self.num_buckets, self.max_distance = num_buckets, max_distance
        self.table = nn.Parameter(torch.zeros(num_buckets, num_heads))

    def bucket(self, difference: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
        """Return the bucket of ``key - query``."""
        half = self.num_buckets // 2
        exact = half // 2
        distance = difference.abs()
        scaled = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact) * (half - exact)
        far = (exact + scaled.long()).clamp(max=half - 1)
        return torch.where(difference > 0, half, 0) + torch.where(distance < exact, distance, far)

    def forward(self, places: Shaped[Tensor, "p l a"]) -> Float[Tensor, "q h l l"]:
        """Look up the table; all sequences of a length have the same bias."""
        index = torch.arange(places.shape[1], device=places.device)
        return self.table[self.bucket(index - index[:, None])].permute(2, 0, 1)[None]  # l l h -> 1 h l l


class Alibi(PositionBias):
    """Minus a slope times the distance of two tokens (ALiBi, https://arxiv.org/abs/2108.12409; symmetric as in MosaicBERT, data2vec 2.0).

    Special tokens neither give nor get a penalty. Slopes: powers of ``2 ** (-8 / n)`` for n heads, n a power of two; other numbers of
    heads take those of the power below, then every second of the power above.

    Args:
        num_heads: of the attention.
        learned_scale: whether each head multiplies its bias by a learned positive number, 1 at first (data2vec 2.0).
    """

    slopes: Tensor

    def __init__(self, num_heads: int, learned_scale: bool = False) -> None:
        super().__init__(num_heads)
        self.register_buffer("slopes", torch.tensor(_slopes(num_heads)), persistent=False)
        self.scale = nn.Parameter(torch.ones(num_heads)) if learned_scale else None

    def forward(self, places: Shaped[Tensor, "p l a"]) -> Float[Tensor, "p h l l"]:
        """Return the penalties; the distance is the sum over the axes."""
        distance = (places[:, :, None] - places[:, None]).abs().sum(-1)  # p l l
        special = (places < 0).any(-1)
        distance = distance.masked_fill(special[:, :, None] | special[:, None], 0)
        slopes = self.slopes if self.scale is None else self.slopes * self.scale.clamp(min=0)
        return -slopes[None, :, None, None] * distance[:, None]


def _slopes(num_heads: int) -> list[float]:
    below = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (i + 1) / below) for i in range(below)]
    between = [2 ** (-8 * (i + 1) / (2 * below)) for i in range(0, 2 * below, 2)]
    return slopes + between[: num_heads - below]
