"""Pictures of features: their three principal components as colours.

Letters in shapes: l patches of an image, t width of the features, c channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from multimodal.protocols import Renderer, Target, Tokenizer
from multimodal.tokenizers.image.grid_render import GREY, enlarged
from multimodal.tokenizers.image.vqkd import VqKdTokenizer


class FeatureRenderer(Renderer):
    """The image, its teacher's features, and the features that its codes stand for: the more alike the last two, the more the codes keep.

    Colours are the first three principal components of the directions of the teacher's features of this image (as in DINOv2,
    https://arxiv.org/abs/2304.07193); the decoded features are shown along the same axes and in the same range.

    Args:
        min_size: small images are enlarged by a whole factor to at least this side, in pixels.
    """

    columns: ClassVar[tuple[str, ...]] = ("image", "teacher's features", "tokens decoded")

    def __init__(self, min_size: int = 96) -> None:
        self.min_size = min_size

    def render(self, tokenizer: Tokenizer | Target, values: Tensor, ids: Tensor, predicted: Tensor, masked: Tensor) -> Mapping[str, Tensor]:
        """Return the three pictures; see ``Renderer.render``. What is masked and predicted does not matter.

        Raises:
            ValueError: the tokenizer is no ``VqKdTokenizer``, or has no teacher or no decoder.
        """
        owner = _with_features(tokenizer)
        wanted = owner.teacher_features(values[None])
        colours = principal_colours(wanted, [wanted, _decoded(owner, ids)])
        return dict(zip(self.columns, [enlarged(values, self.min_size), *(self._picture(x, owner, values) for x in colours)], strict=True))

    def _picture(self, colours: UInt8[Tensor, "l 3"], tokenizer: VqKdTokenizer, values: UInt8[Tensor, "c height width"]) -> Tensor:
        """Return colours of patches as a picture of the image's size."""
        grid = colours.T.unflatten(1, tokenizer.grid)
        rows, columns = (
            torch.arange(side, device=grid.device) * count // side for side, count in zip(values.shape[1:], tokenizer.grid, strict=True)
        )
        return enlarged(grid[:, rows][:, :, columns], self.min_size)


class CodeFeatureRenderer(FeatureRenderer):
    """The image, the image with hidden patches in grey, and the features that the predicted and the true codes stand for.

    For pretraining on the codes of a ``VqKdTokenizer`` with a decoder; it needs no teacher. The axes and the range of the colours are those
    of the true codes' features.

    Args:
        min_size: small images are enlarged by a whole factor to at least this side, in pixels.
    """

    columns: ClassVar[tuple[str, ...]] = ("image", "masked", "predicted", "tokens decoded")

    def render(self, tokenizer: Tokenizer | Target, values: Tensor, ids: Tensor, predicted: Tensor, masked: Tensor) -> Mapping[str, Tensor]:
        """Return the four pictures; see ``Renderer.render``.

        Raises:
            ValueError: the tokenizer is no ``VqKdTokenizer``, or has no decoder.
        """
        owner = _with_features(tokenizer)
        true = _decoded(owner, ids)
        colours = principal_colours(true, [_decoded(owner, predicted), true])
        hidden = self._picture(masked[:, None].expand(-1, 3).to(torch.uint8), owner, values).bool()
        image = enlarged(values, self.min_size)
        drawn = [image, image.masked_fill(hidden, GREY), *(self._picture(x, owner, values) for x in colours)]
        return dict(zip(self.columns, drawn, strict=True))


def principal_colours(axes_of: Float[Tensor, "l t"], shown: list[Float[Tensor, "l t"]]) -> list[UInt8[Tensor, "l 3"]]:
    """Return directions of features as colours: along the first three principal components of some, from their least to their largest.

    Args:
        axes_of: whose components and range are taken.
        shown: what is to be shown; beyond the range is shown as its end.
    """
    directions = F.normalize(axes_of.float(), dim=1)
    centre = directions.mean(0)
    axes = torch.linalg.svd(directions - centre, full_matrices=False).Vh[:3]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()  # else the sign of an axis is left to chance
    axes = F.pad(axes, (0, 0, 0, 3 - len(axes)))
    along = (directions - centre) @ axes.T
    least, reach = along.amin(0), (along.amax(0) - along.amin(0)).clamp(min=1e-6)
    scaled = [((F.normalize(x.float(), dim=1) - centre) @ axes.T - least) / reach for x in shown]
    return [(x.clamp(0, 1) * 255).round().to(torch.uint8) for x in scaled]


def _decoded(tokenizer: VqKdTokenizer, ids: Int[Tensor, "l ..."]) -> Float[Tensor, "l t"]:
    return tokenizer.decode(ids.unflatten(0, (1, *tokenizer.grid)))[0]


def _with_features(tokenizer: Tokenizer | Target) -> VqKdTokenizer:
    if not isinstance(tokenizer, VqKdTokenizer):
        raise ValueError(f"features are drawn of the codes of a VqKdTokenizer, not of those of a {type(tokenizer).__name__}.")
    return tokenizer
