"""Pictures of masked images and of what was predicted for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from multimodal.protocols import Target, Tokenizer
from multimodal.tokenizers.image.grid_render import GREY, GridRenderer, enlarged


class PatchGridRenderer(GridRenderer):
    """The image, the image with hidden patches in grey, the predicted tokens decoded, and the true tokens decoded.

    The last picture shows what the tokenizer keeps of the image: no prediction can look better than it.

    Args:
        grid: rows and columns of patches.
        min_size: small images are enlarged by a whole factor to at least this side, in pixels.
    """

    columns: ClassVar[tuple[str, ...]] = ("image", "masked", "predicted", "tokens decoded")

    def render(self, tokenizer: Tokenizer | Target, values: Tensor, ids: Tensor, predicted: Tensor, masked: Tensor) -> Mapping[str, Tensor]:
        """Return the four pictures; see ``Renderer.render``.

        Raises:
            ValueError: a target is predicted instead of a tokenizer's ids, or the image has another number of patches than ``grid``.
        """
        if not isinstance(tokenizer, Tokenizer):
            raise ValueError(f"a PatchGridRenderer draws the ids of a tokenizer, not what a {type(tokenizer).__name__} predicts.")
        self.check_grid(len(masked))
        hidden = masked.view(self.grid)
        hidden = hidden.repeat_interleave(values.shape[1] // self.grid[0], 0).repeat_interleave(values.shape[2] // self.grid[1], 1)
        shown = torch.where(hidden, values.new_tensor(GREY), values)
        decoded = [(tokenizer.decode(x.view(1, *self.grid, *x.shape[1:]))[0] * 255).round().to(torch.uint8) for x in (predicted, ids)]
        return {name: enlarged(x, self.min_size) for name, x in zip(self.columns, (values, shown, *decoded), strict=True)}
