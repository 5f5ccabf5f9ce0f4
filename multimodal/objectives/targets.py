"""What can be predicted of a hidden token besides a tokenizer's ids.

Letters in shapes: n tokens, t width of a vector.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multimodal.batch import Items
from multimodal.nn import Frozen
from multimodal.protocols import Embed, Target, Teacher, Tokens

EpsTo = Literal["variance", "deviation"]


class TokenValues(Target):
    """The values of the token itself, such as the pixels of a patch (MAE, https://arxiv.org/abs/2111.06377).

    Values are divided by ``scale``; ``mean`` and ``std`` of their colours are taken out; and each token is normalised.

    Args:
        normalize: each token is shifted and scaled to mean 0 and standard deviation 1 (MAE's normalised pixels).
        channels: how many equal parts of a token, one after the other, are normalised each by themselves. MAE: 1; VideoMAE: 3, the colours.
        scale: what values are divided by.
        mean: subtracted after that: one number, or one for each of several equal parts of a token, the colours. MAE: that of the encoder's
            view, since colours are normalised together.
        std: divides after that.
        eps: added to the variance. MAE: 1e-6.
        eps_to: what ``eps`` is added to, the "variance" (MAE) or the "deviation" (VideoMAE, https://arxiv.org/abs/2203.12602).

    Raises:
        ValueError: fewer than 1 channel; an unknown ``eps_to``; a scale or deviation that is not positive; means and deviations of
            different numbers of colours.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        normalize: bool = True,
        channels: int = 1,
        scale: float = 255.0,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        eps: float = 1e-6,
        eps_to: EpsTo = "variance",
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}.")
        if eps_to not in get_args(EpsTo):
            raise ValueError(f"eps_to must be one of {', '.join(get_args(EpsTo))}, got {eps_to!r}.")
        if scale <= 0 or min(std, default=0) <= 0 or len(mean) != len(std):
            raise ValueError(f"scale and std must be positive, and mean as long as std; got {scale}, {tuple(std)} and {tuple(mean)}.")
        self.normalize, self.channels, self.scale, self.eps, self.eps_to = normalize, channels, scale, eps, eps_to
        self.register_buffer("mean", torch.tensor(mean)[:, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None], persistent=False)

    def sizes(self, embed: Embed) -> tuple[int, ...]:
        """Return how many values a token has."""
        for what, count in (("channels", self.channels), ("mean and std of colours", len(self.mean))):
            if embed.input_size % count:
                raise ValueError(f"a token of {embed.input_size} values is not of {count} equal parts, for which there are {what}.")
        return (embed.input_size,)

    def forward(self, items: Items, tokens: Tokens) -> Float[Tensor, "n t"]:
        """Return the values."""
        values = self._scaled(tokens.inputs)
        if not self.normalize:
            return values
        mean, deviation = self._statistics(values)
        return ((values.unflatten(1, (self.channels, -1)) - mean) / deviation).flatten(1)

    def restored(self, inputs: Tensor, vectors: Float[Tensor, "n t"]) -> Float[Tensor, "n t"]:
        """Return vectors as values again, with the mean and deviation of the true tokens where these were taken out."""
        if self.normalize:
            mean, deviation = self._statistics(self._scaled(inputs))
            vectors = (vectors.unflatten(1, (self.channels, -1)) * deviation + mean).flatten(1)
        return ((vectors.unflatten(1, (len(self.mean), -1)) * self.std + self.mean) * self.scale).flatten(1)

    def _scaled(self, inputs: Tensor) -> Tensor:
        colours = (inputs.float() / self.scale).unflatten(1, (len(self.mean), -1))  # n c p
        return ((colours - self.mean) / self.std).flatten(1)

    def _statistics(self, values: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(values.unflatten(1, (self.channels, -1)), -1, keepdim=True)  # unbiased, as in MAE
        return mean, variance.sqrt() + self.eps if self.eps_to == "deviation" else (variance + self.eps).sqrt()


class TeacherFeatures(Target):
    """The features that a frozen model gives a token of the whole item (EVA, https://arxiv.org/abs/2211.07636).

    Args:
        teacher: the model; it sees the tokenizer's view where there is one.
        normalize: features are shifted and scaled to mean 0 and standard deviation 1 over the width of each token. For a "cosine" loss: no.
    """

    def __init__(self, teacher: Teacher, normalize: bool = False) -> None:
        super().__init__()
        self.teacher, self.width, self.normalize = Frozen(teacher), teacher.dim, normalize

    def sizes(self, embed: Embed) -> tuple[int, ...]:
        """Return the width of the features."""
        return (self.width,)

    def forward(self, items: Items, tokens: Tokens) -> Float[Tensor, "n t"]:
        """Return the features."""
        features = self.teacher(*items.for_tokenizer).float()
        return torch.nn.functional.layer_norm(features, features.shape[-1:]) if self.normalize else features


class Places(Target):
    """The place of a token in its grid, as a number in row-major order; its place must not be shown (``multimodal.masking.HidePlaces``).

    The encoder must have no positions that show it in another way: a convolution, or patches that overlap.

    Args:
        grid: extent along each axis.
    """

    def __init__(self, grid: Sequence[int] = (14, 14)) -> None:
        super().__init__()
        self.grid = tuple(grid)

    @property
    def field_names(self) -> tuple[str, ...]:
        """One field, the place."""
        return ("place",)

    def sizes(self, embed: Embed) -> tuple[int, ...]:
        """Return the number of places."""
        return (math.prod(self.grid),)

    def forward(self, items: Items, tokens: Tokens) -> Int[Tensor, " n"]:
        """Return the places.

        Raises:
            ValueError: the tokens lie on another grid.
        """
        if tokens.grid != self.grid:
            raise ValueError(f"Places has the grid {self.grid}, the tokens lie on {tokens.grid}: set grid.")
        number = torch.zeros_like(tokens.coordinates[:, 0])
        for axis, extent in enumerate(cast(tuple[int, ...], tokens.grid)):
            number = number * extent + tokens.coordinates[:, axis]
        return number
