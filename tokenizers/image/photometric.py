"""Changes of colour that leave every pixel where it is.

Letters in shapes: c channels, h height, w width.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from multimodal.tokenizers.image.transform import from_picture, to_picture

BRIGHTNESS, CONTRAST, SATURATION = 32, 0.5, 0.5
HUE = 18 / 180  # of the whole circle


class PhotometricDistortion:
    """Change brightness, contrast, saturation and hue, each with a probability of 1/2 (SSD, https://arxiv.org/abs/1512.02325; as mmseg).

    Brightness is added to (up to 32 of 255), contrast (around black) and saturation are multiplied (by 0.5 to 1.5), the hue is turned by
    up to a tenth of the circle. Contrast changes before saturation and hue or after them, with a probability of 1/2 each. Of grey images
    only brightness and contrast change.

    Args:
        strength: the ranges are multiplied by this, in [0, 1].

    Raises:
        ValueError: ``strength`` is outside [0, 1].
    """

    def __init__(self, strength: float = 1.0) -> None:
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must be in [0, 1], got {strength}.")
        self.strength = strength

    def __call__(self, view: UInt8[Tensor, "c h w"], generator: torch.Generator) -> UInt8[Tensor, "c h w"]:
        """Return the changed image."""
        happens, amounts = torch.rand(5, generator=generator).tolist(), (2 * torch.rand(4, generator=generator) - 1).tolist()
        brightness, contrast, saturation, hue = (
            self.strength * limit * amount if draw < 0.5 else 0.0
            for draw, amount, limit in zip(happens, amounts, (BRIGHTNESS, CONTRAST, SATURATION, HUE), strict=False)
        )
        contrast_first = happens[4] < 0.5
        view = _linear(view, 1 + contrast if contrast_first else 1.0, brightness)
        view = _turned(view, 1 + saturation, hue) if len(view) == 3 and (saturation or hue) else view
        return view if contrast_first else _linear(view, 1 + contrast, 0.0)


def _linear(view: UInt8[Tensor, "c h w"], factor: float, added: float) -> UInt8[Tensor, "c h w"]:
    """Add, then multiply, clipping after each."""
    if factor == 1 and added == 0:
        return view
    return view.float().add_(added).clamp_(0, 255).mul_(factor).clamp_(0, 255).round_().to(torch.uint8)


def _turned(view: UInt8[Tensor, "c h w"], saturation: float, hue: float) -> UInt8[Tensor, "c h w"]:
    """Multiply saturation and turn the hue by a share of the circle."""
    values = np.array(to_picture(view).convert("HSV"))
    values[..., 0] += np.uint8(round(hue * 256) % 256)  # a circle of 256: bytes wrap around as hues do
    values[..., 1] = (values[..., 1].astype(np.float32) * saturation).clip(0, 255).round()
    return from_picture(Image.fromarray(values, "HSV").convert("RGB"))
