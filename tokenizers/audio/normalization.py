"""Spectrograms whose bins have mean 0 and deviation 1 in every item.

Letters in shapes: b items, f frames of all items, m mel bins.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from multimodal.batch import Items
from multimodal.protocols import Preparation

LEAST_DEVIATION = 1e-3
"""A bin that moves by less is constant but for rounding, and must not be blown up: it becomes zeros."""


class NormalizeBins(Preparation):
    """Shift and scale each bin of each item to mean 0 and standard deviation 1 over its frames (CMVN of speech models; Mockingjay, TERA).

    The deviation is the unbiased one, as in s3prl. Spectrograms of any gain become the same, so the embedding's ``mean`` must be 0 and its
    ``std`` 1.
    """

    normalizes: ClassVar[bool] = True

    def forward(self, items: Items, train: bool) -> Items:
        """Return the normalised items, laid out as they were."""
        if items.lengths is None:
            return replace(items, values=_normalized(items.values))
        return replace(items, values=self._ragged(items.values, items.lengths))

    def _ragged(self, values: Float[Tensor, "f m"], lengths: Tensor) -> Float[Tensor, "f m"]:
        item = torch.repeat_interleave(lengths)
        centred = values - _sums(values, item, len(lengths)).div(lengths[:, None])[item]
        variance = _sums(centred.square(), item, len(lengths)) / (lengths - 1).clamp(min=1)[:, None]
        return (centred / variance.sqrt().clamp(min=LEAST_DEVIATION)[item]).to(values.dtype)


def _normalized(values: Float[Tensor, "b f m"]) -> Float[Tensor, "b f m"]:
    variance, mean = torch.var_mean(values.double(), 1, correction=min(1, values.shape[1] - 1), keepdim=True)
    return ((values - mean) / variance.sqrt().clamp(min=LEAST_DEVIATION)).to(values.dtype)


def _sums(values: Float[Tensor, "f m"], item: Tensor, count: int) -> Float[Tensor, "b m"]:
    """Return the sum over each item, in float64: the mean of a constant must be that constant."""
    return values.new_zeros(count, values.shape[1], dtype=torch.float64).index_add_(0, item, values.double())
