"""Pictures of masked clips and of the pixels that were predicted for them.

Letters in shapes: f frames, c channels, h height, w width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Shaped
from torch import Tensor

from multimodal.protocols import Renderer, Target, Tokenizer

GREY = 128
"""Of what is hidden."""


class ClipRenderer(Renderer):
    """Strips of a clip's frames, from top to bottom: the clip, with hidden cubes in grey, the predicted cubes alone, and among the visible.

    Where cubes are normalised before they are predicted (VideoMAE), the mean and deviation of the true ones are put back, as no prediction
    tells them.

    Args:
        tubelet_size: frames of a cube, as in ``TubeletEmbed``.
        patch_size: side of a cube in pixels, likewise.
        num_frames: frames of a strip, at equal distances in the clip; all, where it has no more.
        min_size: small frames are enlarged by a whole factor to at least this height, in pixels.

    Raises:
        ValueError: a setting below 1.
    """

    columns: ClassVar[tuple[str, ...]] = ("clip", "masked", "predicted", "completed")

    def __init__(self, tubelet_size: int = 2, patch_size: int = 16, num_frames: int = 8, min_size: int = 64) -> None:
        if min(tubelet_size, patch_size, num_frames, min_size) < 1:
            given = f"tubelet_size {tubelet_size}, patch_size {patch_size}, num_frames {num_frames}, min_size {min_size}"
            raise ValueError(f"the settings of a ClipRenderer must be at least 1, got {given}.")
        self.tubelet_size, self.patch_size, self.num_frames, self.min_size = tubelet_size, patch_size, num_frames, min_size

    def render(self, tokenizer: Tokenizer | Target, values: Tensor, ids: Tensor, predicted: Tensor, masked: Tensor) -> Mapping[str, Tensor]:
        """Return the four strips; see ``Renderer.render``.

        Raises:
            ValueError: the target is not the values of the cubes, or the clip has another number of cubes than it should.
        """
        if not isinstance(tokenizer, Target):
            raise ValueError(f"a ClipRenderer draws predicted pixels (target: TokenValues), not the ids of a {type(tokenizer).__name__}.")
        cubes = self._cubes(values, len(masked))
        made = tokenizer.restored(cubes, predicted.float()).round().clamp(0, 255).to(torch.uint8)
        grey, hidden = torch.full_like(cubes, GREY), masked[:, None]
        shown = (cubes, torch.where(hidden, grey, cubes), torch.where(hidden, made, grey), torch.where(hidden, made, cubes))
        return {name: self._strip(x, values) for name, x in zip(self.columns, shown, strict=True)}

    def _cubes(self, values: Shaped[Tensor, "f c h w"], num_tokens: int) -> Shaped[Tensor, "n t"]:
        time, side = self.tubelet_size, self.patch_size
        frames, _, height, width = values.shape
        fits = not (frames % time or height % side or width % side)
        if not fits or frames // time * (height // side) * (width // side) != num_tokens:
            raise ValueError(
                f"the renderer's cubes of {time} frames of {side} x {side} pixels are not those of a clip of {tuple(values.shape)} with "
                f"{num_tokens} cubes: set tubelet_size and patch_size of the ClipRenderer to those of the embedding."
            )
        return rearrange(values, "(t r) c (h p) (w q) -> (t h w) (c r p q)", r=time, p=side, q=side)

    def _strip(self, cubes: Tensor, like: Shaped[Tensor, "f c h w"]) -> Shaped[Tensor, "3 rows columns"]:
        frames, channels, height, width = like.shape
        time, side = self.tubelet_size, self.patch_size
        sizes = {"t": frames // time, "h": height // side, "w": width // side, "c": channels, "r": time, "p": side}
        clip = rearrange(cubes, "(t h w) (c r p q) -> (t r) c (h p) (w q)", **sizes)
        count = min(frames, self.num_frames)
        chosen = clip[[number * frames // count for number in range(count)]].expand(-1, 3, -1, -1)
        factor = max(1, -(-self.min_size // height))
        enlarged = chosen.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        return rearrange(enlarged, "f c h w -> c h (f w)")
