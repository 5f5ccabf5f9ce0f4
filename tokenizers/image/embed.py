"""Patches of pixels -> tokens.

Letters in shapes: b images, c channels, n patches of all images, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from multimodal.nn import FirstWeights, SinCosPosition2d, initialize_linear, initialize_vectors
from multimodal.protocols import Embed, Tokens


class PatchEmbed(Embed):
    """Square patches through one linear layer (ViT, https://arxiv.org/abs/2010.11929); hidden patches become a learned mask token (BEiT).

    Args:
        dim: width of the encoder.
        patch_size: side of a patch, in pixels.
        channels: of the images.
        mean: subtracted from pixels scaled to [0, 1]; one number for all channels or one each. BEiT on ImageNet-22k: 0.5.
        std: divides after that.
        position: builds the positions from the width; called with ``(n, 2)`` rows and columns. None: positions enter in the encoder (BEiT).
        first_weights: how the linear layer and the mask token start, as in ``Encoder``: with "xavier_uniform" (MAE) patches do not drown in
            the positions. BEiT: "clipped_normal".

    Raises:
        ValueError: unknown ``first_weights``.
    """

    def __init__(
        self,
        dim: int,
        patch_size: int = 16,
        channels: int = 3,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
        position: Callable[[int], nn.Module] | None = SinCosPosition2d,
        first_weights: FirstWeights = "xavier_uniform",
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Linear(channels * patch_size**2, dim)
        self.position = position(dim) if position else None
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.register_buffer("mean", torch.tensor(mean).expand(channels).repeat_interleave(patch_size**2), persistent=False)
        self.register_buffer("std", torch.tensor(std).expand(channels).repeat_interleave(patch_size**2), persistent=False)
        initialize_linear(self.proj, first_weights)
        initialize_vectors(self.mask_token, first_weights)

    def tokens(self, values: Shaped[Tensor, "b c height width"], lengths: Tensor | None = None) -> Tokens:
        """Cut images, with values of 0 to 255, into patches, row by row.

        Raises:
            ValueError: the image's sides are no multiples of the patch size.
        """
        size = self.patch_size
        if values.shape[2] % size or values.shape[3] % size:
            raise ValueError(f"images of {values.shape[2]} x {values.shape[3]} pixels cannot be cut into patches of {size} x {size}.")
        count, rows, columns = values.shape[0], values.shape[2] // size, values.shape[3] // size
        return Tokens(
            inputs=rearrange(values, "b c (h p) (w q) -> (b h w) (c p q)", p=size, q=size),
            lengths=torch.full((count,), rows * columns, device=values.device),
            coordinates=_grid(rows, columns, values.device).repeat(count, 1),
            grid=(rows, columns),
        )

    @property
    def input_size(self) -> int:
        """Pixels of a patch, all channels together."""
        return self.proj.in_features

    def forward(self, tokens: Tokens, shown_as_mask: Tensor | None = None) -> Float[Tensor, "n d"]:
        """Embed patches; the mask replaces a patch after the projection, as in BEiT."""
        x = self.proj((tokens.inputs / 255 - self.mean) / self.std)
        if shown_as_mask is not None:
            x = torch.where(shown_as_mask[:, None], self.mask_token.to(x.dtype), x)
        if self.position is None:
            return x
        if tokens.unplaced is None:
            return x + self.position(tokens.coordinates)
        return x + self.position(tokens.coordinates.clamp(min=0)).masked_fill(tokens.unplaced[:, None], 0)


def _grid(rows: int, columns: int, device: torch.device) -> Int[Tensor, "n 2"]:
    return torch.cartesian_prod(torch.arange(rows, device=device), torch.arange(columns, device=device))
