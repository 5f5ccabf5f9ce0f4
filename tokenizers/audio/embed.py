"""Patches of spectrograms -> tokens.

Letters in shapes: b items, f frames, m mel bins, n patches of all items, q values of a patch, d width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multimodal.nn import LayerNorm, SinCosPosition2d
from multimodal.protocols import Embed, Preparation, Tokens, Transform
from multimodal.tokenizers.audio.features import check_statistics
from multimodal.tokenizers.audio.patches import cut_patches, patch_shape


class NormedProjection(nn.Module):
    """A linear layer without bias, a norm and, where the widths differ, another linear layer (BEATs, https://arxiv.org/abs/2212.09058).

    Args:
        num_values: of a patch.
        dim: width of the result.
        hidden_dim: width between. BEATs: 512.
        eps: of the norm.
    """

    def __init__(self, num_values: int, dim: int, hidden_dim: int = 512, eps: float = 1e-5) -> None:
        super().__init__()
        self.patch = nn.Linear(num_values, hidden_dim, bias=False)
        self.norm = LayerNorm(hidden_dim, eps=eps)
        self.out = nn.Linear(hidden_dim, dim) if hidden_dim != dim else nn.Identity()

    def forward(self, x: Float[Tensor, "n q"]) -> Float[Tensor, "n d"]:
        """Project patches."""
        return self.out(self.norm(self.patch(x)))


class SpectrogramEmbed(Embed):
    """Patches of a log-mel spectrogram through a linear layer (AST, https://arxiv.org/abs/2104.01778).

    Hidden patches become a learned mask token. Frames and bins that do not fill a patch are left out.

    Args:
        dim: width of the encoder.
        patch_size: frames and bins of a patch: one number for both, or two. [1, 80] makes a token of each whole frame of 80 bins, as speech
            models have them.
        stride: frames and bins from one patch to the next; None: ``patch_size``. AST: 10 and 10.
        frequency_first: whether all patches of a band stand together, the lowest band first, and coordinates are band and time (AST);
            instead of all patches of the same frames, with coordinates time and band (BEATs, AudioMAE, EAT).
        mean: subtracted from the spectrogram. AudioSet with gain 1: -4.2677393; BEATs: 15.41663.
        std: divides after that. The published models take twice the standard deviation: AudioSet 9.1379948, BEATs 13.11164.
        projection: builds the layer from the numbers in a patch and the width; None: one linear layer. BEATs: ``NormedProjection``.
        position: builds the positions from the width; called with ``(n, 2)`` coordinates. None: positions enter in the encoder (BEATs).

    Raises:
        ValueError: a size below 1, or a standard deviation that is not positive.
    """

    def __init__(
        self,
        dim: int,
        patch_size: int | Sequence[int] = 16,
        stride: Sequence[int] | None = None,
        frequency_first: bool = False,
        mean: float = 15.41663,
        std: float = 13.11164,
        projection: Callable[[int, int], nn.Module] | None = None,
        position: Callable[[int], nn.Module] | None = SinCosPosition2d,
    ) -> None:
        super().__init__()
        self.patch_shape = patch_shape(patch_size)
        self.stride = self.patch_shape if stride is None else tuple(stride)
        if len(self.stride) != 2 or min(self.stride) < 1:
            raise ValueError(f"the two numbers of stride must be at least 1, got {self.stride}.")
        if std <= 0:
            raise ValueError(f"std must be positive, got {std}.")
        self.frequency_first = frequency_first
        self.mean, self.std = mean, std
        self.proj = nn.Linear(self.input_size, dim) if projection is None else projection(self.input_size, dim)
        self.position = position(dim) if position else None
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.proj.apply(_initialize)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    @property
    def input_size(self) -> int:
        """How many numbers a patch has."""
        return math.prod(self.patch_shape)

    def check_source(self, source: Transform | Preparation) -> None:
        """Refuse statistics of another gain than that of the spectrograms; see ``check_statistics``."""
        check_statistics(self.mean, source)

    def tokens(self, values: Float[Tensor, "*f m"], lengths: Int[Tensor, " b"] | None = None) -> Tokens:
        """Cut spectrograms into patches.

        Args:
            values: ``(b, frames, bins)`` of items of one length, or ``(f, bins)`` with ``lengths``.
            lengths: frames of each item; None: all have the same.

        Raises:
            ValueError: an item is smaller than a patch, or there are no lengths where they are needed.
        """
        return cut_patches(values, lengths, self.patch_shape, self.stride, self.frequency_first)

    def forward(self, tokens: Tokens, shown_as_mask: Bool[Tensor, " n"] | None = None) -> Float[Tensor, "n d"]:
        """Embed patches; the mask replaces a patch after the projection."""
        x = self.proj((tokens.inputs - self.mean) / self.std)
        if shown_as_mask is not None:
            x = torch.where(shown_as_mask[:, None], self.mask_token.to(x.dtype), x)
        return x if self.position is None else x + self.position(tokens.coordinates)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)  # as MAE: patches must not drown in the positions
        if module.bias is not None:
            nn.init.zeros_(module.bias)
