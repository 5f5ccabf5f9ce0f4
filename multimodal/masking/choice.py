"""Hide each item in one of several ways."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from multimodal.masking.noise import uniform
from multimodal.protocols import Masking, Tokens

CHOICE = 34
"""Stream of the noise that chooses."""


class ChoiceMasking(Masking):
    """Draw one of several maskings for each item: bars in one, spans in the next, so that one model learns to fill in both.

    Args:
        maskings: at least one. Those that hide whole tokens and those that hide single fields go together.
        weights: how often each is drawn, relative to the others; None: all as often.

    Raises:
        ValueError: no maskings, weights that are not as many, negative or all 0, or a masking that mixes items or learns.
    """

    def __init__(self, maskings: Sequence[Masking], weights: Sequence[float] | None = None) -> None:
        weights = [1.0] * len(maskings) if weights is None else list(weights)
        if not maskings or len(weights) != len(maskings) or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"{len(maskings)} maskings need as many weights of at least 0, not all 0; got {weights}.")
        if refused := [type(masking).__name__ for masking in maskings if masking.num_mixed > 1 or masking.learns]:
            raise ValueError(f"{refused[0]} mixes items or learns from all of them, so that it cannot be drawn for some.")
        self.maskings, self.weights = list(maskings), weights

    def __call__(self, tokens: Tokens, seed: Int[Tensor, " items"]) -> Bool[Tensor, "n ..."]:
        """Return True where a token, or a field of it, is hidden."""
        bounds = torch.tensor(self.weights, dtype=torch.float64, device=seed.device).cumsum(0)
        noise = uniform(seed, torch.zeros_like(seed), CHOICE).double() * bounds[-1]
        chosen = torch.searchsorted(bounds, noise, right=True).clamp(max=len(self.maskings) - 1)[tokens.item]
        masks = [masking(tokens, seed) for masking in self.maskings]
        if any(mask.ndim > 1 for mask in masks):
            masks = [mask if mask.ndim > 1 else mask[:, None].expand(-1, len(tokens.fields)) for mask in masks]
        return torch.stack(masks)[chosen, torch.arange(len(chosen), device=chosen.device)]
