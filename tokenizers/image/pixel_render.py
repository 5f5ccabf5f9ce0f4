"""Pictures of masked images and of the pixels that were predicted for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor

from multimodal.protocols import Target, Tokenizer
from multimodal.tokenizers.image.grid_render import GREY, GridRenderer, enlarged


class PixelRenderer(GridRenderer):
    """The image, the image with hidden patches in grey, the predicted patches alone, and the predicted patches among the visible ones.

    Where patches are normalised before they are predicted (MAE), the mean and deviation of the true ones are put back, since no prediction
    tells them: brightness and contrast of a patch are then those of the image.

    Args:
        grid: rows and columns of patches.
        min_size: small images are enlarged by a whole factor to at least this side, in pixels.
    """

    columns: ClassVar[tuple[str, ...]] = ("image", "masked", "predicted", "completed")

    def render(self, tokenizer: Tokenizer | Target, values: Tensor, ids: Tensor, predicted: Tensor, masked: Tensor) -> Mapping[str, Tensor]:
        """Return the four pictures; see ``Renderer.render``.

        Raises:
            ValueError: the target is not the values of the tokens, or the image has another number of patches than ``grid``.
        """
        if not isinstance(tokenizer, Target):
            raise ValueError(f"a PixelRenderer draws predicted pixels (target: TokenValues), not the ids of a {type(tokenizer).__name__}.")
        self.check_grid(len(masked))
        rows, columns = self.grid
        patches = rearrange(values, "c (h p) (w q) -> (h w) (c p q)", h=rows, w=columns)
        made = tokenizer.restored(patches, predicted.float()).round().clamp(0, 255).to(torch.uint8)
        grey, hidden = torch.full_like(patches, GREY), masked[:, None]
        shown = (patches, torch.where(hidden, grey, patches), torch.where(hidden, made, grey), torch.where(hidden, made, patches))
        return {name: self._picture(x, values) for name, x in zip(self.columns, shown, strict=True)}

    def _picture(self, patches: Tensor, like: Tensor) -> Tensor:
        channels, height = like.shape[:2]
        side = height // self.grid[0]
        pixels = rearrange(patches, "(h w) (c p q) -> c (h p) (w q)", h=self.grid[0], w=self.grid[1], c=channels, p=side)
        return enlarged(pixels, self.min_size)
