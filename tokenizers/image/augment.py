"""Changes of single images that make a classifier robust: timm's, drawn from a generator of ours.

Letters in shapes: c channels, h height, w width.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from multimodal.tokenizers.image.transform import from_picture, to_picture

POLICY = re.compile(r"rand(-(m|mmax)\d+|-n[1-9]\d*|-p(0(\.\d+)?|1)|-mstd\d+(\.\d+)?|-inc[01])*")
ABSOLUTE_SHIFT = 0.45  # of the view's side: timm's limit of the operations TranslateX and TranslateY


class RandAugment:
    """A few operations in a row, drawn from a list, each at about one strength (https://arxiv.org/abs/1909.13719), by timm.

    Posterize keeps one bit at least; timm's keeps none at full strength, which Pillow refuses.

    Args:
        policy: as timm writes it: ``m`` strength of 0 to 10, ``mstd`` its spread, ``n`` operations in a row (2), ``p`` probability of each
            (0.5), ``mmax`` limit of the strength, ``inc1``: all operations grow with it. BEiT, BEiT v2, MAE: the default.
        operations: timm's names of those to draw from, such as "Rotate", "ShearX", "TranslateYRel"; None: timm's 15, which also turn and
            invert colours. ``inc1`` chooses among those 15 alone: of your own list name "SolarizeIncreasing" rather than "Solarize".
        fill: what comes in from outside the image, in [0, 1]; one number for all channels or one each. timm: the mean of the data.

    Raises:
        ValueError: a policy or an operation that timm does not have, or a fill outside [0, 1].
    """

    libraries: ClassVar[tuple[str, ...]] = ("timm",)

    def __init__(
        self, policy: str = "rand-m9-mstd0.5-inc1", operations: Sequence[str] | None = None, fill: Sequence[float] = (0.5,)
    ) -> None:
        if not POLICY.fullmatch(policy):
            raise ValueError(
                f"policy must be 'rand' and then parts such as -m9 -n2 -p0.5 -mstd0.5 -mmax10 -inc1, each of a number; got {policy!r}."
            )
        if operations is not None:
            _check_operations(operations)
        if not fill or not all(0 <= value <= 1 for value in fill):
            raise ValueError(f"fill must be numbers in [0, 1], got {tuple(fill)}.")
        self.policy, self.fill = policy, tuple(fill)
        self.operations = None if operations is None else tuple(operations)

    def __call__(self, view: UInt8[Tensor, "c h w"], generator: torch.Generator) -> UInt8[Tensor, "c h w"]:
        """Return the changed image; the draws follow from the generator alone.

        Raises:
            ValueError: ``fill`` has neither one number nor one for each channel.
        """
        colour = tuple(round(255 * value) for value in of_channels("fill", self.fill, len(view)))
        change = _rand_augment(self.policy, self.operations, colour[0] if len(colour) == 1 else colour, min(view.shape[1:]))
        with drawn_from(generator):
            return from_picture(change(to_picture(view)))


class RandomErasing:
    """Noise in a rectangle (https://arxiv.org/abs/1708.04896), by timm, in its mode "pixel".

    The noise is normal once the pixels are normalised; a departure from timm is that it is cut off at black and white.

    Args:
        probability: of an image to get a rectangle, in [0, 1]. BEiT, BEiT v2, MAE: 0.25.
        area: range of the rectangle's share of the area, in (0, 1].
        ratio: least ratio of the rectangle's sides; the largest is its inverse. In (0, 1].
        mean: of the normalisation, in [0, 1]; one number for all channels or one each.
        std: of the normalisation, above 0, likewise.

    Raises:
        ValueError: a setting outside its range.
    """

    libraries: ClassVar[tuple[str, ...]] = ("timm",)

    def __init__(
        self,
        probability: float = 0.25,
        area: tuple[float, float] = (0.02, 1 / 3),
        ratio: float = 0.3,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
    ) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be in [0, 1], got {probability}.")
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError(f"area must be an ascending range in (0, 1], got {area}.")
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must be in (0, 1], got {ratio}.")
        if not mean or not all(0 <= value <= 1 for value in mean):
            raise ValueError(f"mean must be numbers in [0, 1], got {tuple(mean)}.")
        if not std or min(std) <= 0:
            raise ValueError(f"std must be numbers above 0, got {tuple(std)}.")
        self.probability, self.area, self.ratio = probability, tuple(area), ratio
        self.mean, self.std = tuple(mean), tuple(std)

    def __call__(self, view: UInt8[Tensor, "c h w"], generator: torch.Generator) -> UInt8[Tensor, "c h w"]:
        """Return the image, maybe with a rectangle of noise; the draws follow from the generator alone.

        Raises:
            ValueError: ``mean`` or ``std`` has neither one number nor one for each channel.
        """
        from timm.data.random_erasing import RandomErasing as Eraser

        mean, std = (
            torch.tensor(of_channels(name, value, len(view)))[:, None, None] for name, value in (("mean", self.mean), ("std", self.std))
        )
        erase = Eraser(self.probability, self.area[0], self.area[1], self.ratio, mode="pixel", device="cpu")
        with drawn_from(generator):
            noise = erase(torch.full(view.shape, torch.nan))  # a number where it erases
        erased = ~noise.isnan()
        if not erased.any():
            return view
        return torch.where(erased, ((noise.nan_to_num() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8), view)


@contextmanager
def drawn_from(generator: torch.Generator) -> Iterator[None]:
    """Let the global generators of Python, NumPy and torch, which timm draws from, follow from one of ours, and be as before after it."""
    seed = int(torch.randint(2**62, (), generator=generator))
    python, numpy, torch_ = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the devices too
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.default_generator.set_state(torch_)


def of_channels(name: str, values: Sequence[float], channels: int) -> Sequence[float]:
    """Return one number for each channel.

    Args:
        name: of the setting, for the message.
        values: one number for all channels, or one each.
        channels: how many there are.

    Raises:
        ValueError: there are other numbers of both.
    """
    if len(values) not in (1, channels):
        raise ValueError(f"{name} must be one number, or one for each of {channels} channels; got {len(values)}.")
    return values if len(values) == channels else tuple(values) * channels


def _check_operations(operations: Sequence[str]) -> None:
    from timm.data.auto_augment import NAME_TO_OP

    unknown = [name for name in operations if name not in NAME_TO_OP]
    if unknown or not operations:
        raise ValueError(f"operations must be some of {', '.join(sorted(NAME_TO_OP))}; got {unknown or 'none'}.")


@lru_cache(maxsize=16)
def _rand_augment(
    policy: str, operations: tuple[str, ...] | None, colour: int | tuple[int, ...], side: int
) -> Callable[[Image.Image], Image.Image]:
    from timm.data.auto_augment import rand_augment_transform

    settings = {"translate_const": int(side * ABSOLUTE_SHIFT), "img_mean": colour, "interpolation": Image.Resampling.BICUBIC}
    change: Any = rand_augment_transform(policy, settings, transforms=None if operations is None else list(operations))
    for operation in change.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    return change  # type: ignore[no-any-return]


def _posterize(picture: Image.Image, bits: int, **_: Any) -> Image.Image:
    return picture if bits >= 8 else ImageOps.posterize(picture, max(bits, 1))
