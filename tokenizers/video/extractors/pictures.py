"""Models of pictures as extractors: a clip is what some of its pictures have in common, and how they change.

Letters in shapes: b clips, f pictures of a clip, h height, w width, p pictures that are looked at, d width of the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from multimodal.protocols import Teacher
from multimodal.tokenizers.video.extractors.extractor import ClipExtractor

OverTime = Literal["mean", "max", "mean_and_change"]


class PictureExtractor(ClipExtractor):
    """Features of some pictures of a clip, at equal distances, each the mean of its patches, put together over time.

    A single picture says what there is, not what happens: "mean_and_change" adds how the second half differs from the first.

    Args:
        teacher: gives the patches of a picture features: ``TimmTeacher``, ``TransformersTeacher``, or an encoder of our own or imported.
        num_pictures: how many are looked at; 1: the middle one.
        over_time: "mean", "max", or "mean_and_change": mean, and mean of the second half less that of the first, side by side.

    Raises:
        ValueError: another ``over_time``, no pictures, or a change with fewer than two.
    """

    def __init__(self, teacher: Teacher, num_pictures: int = 4, over_time: OverTime = "mean") -> None:
        super().__init__()
        if over_time not in get_args(OverTime):
            raise ValueError(f"over_time must be one of {', '.join(get_args(OverTime))}, got {over_time!r}.")
        least = 2 if over_time == "mean_and_change" else 1
        if num_pictures < least:
            raise ValueError(f"num_pictures must be at least {least} for {over_time!r}, got {num_pictures}.")
        self.num_pictures, self.over_time, self.min_frames = num_pictures, over_time, num_pictures
        self.teacher = teacher.requires_grad_(False).eval()

    @property
    def dim(self) -> int:
        """Width of the teacher; twice that of "mean_and_change"."""
        return self.teacher.dim * (2 if self.over_time == "mean_and_change" else 1)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What is looked at, and which model looks."""
        own = {name: x for name, x in vars(self.teacher).items() if isinstance(x, bool | int | float | str | tuple | None)}
        plain = {name: x for name, x in own.items() if not name.startswith("_") and name != "training"}
        teacher = f"{type(self.teacher).__module__}.{type(self.teacher).__qualname__}"
        return {"num_pictures": self.num_pictures, "over_time": self.over_time, "teacher": teacher, "of_teacher": plain}

    @torch.no_grad()
    def forward(self, values: UInt8[Tensor, "b f 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the features of clips of at least ``num_pictures`` pictures.

        Raises:
            ValueError: fewer pictures, or the teacher cannot read them.
        """
        self.check(values[0])
        count, frames = len(values), values.shape[1]
        places = [(2 * number + 1) * frames // (2 * self.num_pictures) for number in range(self.num_pictures)]
        patches = self.teacher(values[:, places].flatten(0, 1))  # (b p patches) d
        pictures = patches.float().reshape(count, self.num_pictures, -1, patches.shape[-1]).mean(2)  # b p d
        if self.over_time == "max":
            return pictures.amax(1)
        mean = pictures.mean(1)
        if self.over_time == "mean":
            return mean
        half = self.num_pictures // 2
        return torch.cat([mean, pictures[:, -half:].mean(1) - pictures[:, :half].mean(1)], 1)
