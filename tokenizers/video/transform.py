"""Film files -> clips of a fixed number of square pictures.

Letters in shapes: f frames, c channels, h height, w width, s side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from multimodal.batch import Item
from multimodal.protocols import Moments, Transform
from multimodal.tokenizers.video.crop import Crop, RandomSquare, Window, cut, square_at
from multimodal.tokenizers.video.decode import Film, VideoLimits, clip_of, open_film
from multimodal.tokenizers.video.describe import describe_film

DECODED_VALUES = 2**27  # of pictures in full size that are held at once
GREY = (0.299, 0.587, 0.114)  # red, green, blue in a pixel's brightness
SECONDS = 2.0


class VideoTransform(Transform):
    """Pictures at equal distances over some seconds of a film, cropped and resized to a square.

    In training the start, the part of the pictures that is shown and a flip are drawn at random; in evaluation clip and square are central,
    or there are several views: clips from the film's start to its end, and of each the squares from one side of the pictures to the other.
    Of a film shorter than the clip, the pictures are spread over the whole of it. The result is uint8; normalisation happens on the device.

    Args:
        size: side of a picture, in pixels.
        num_frames: pictures of a clip.
        seconds: time from the first picture to where the one after the last would be; None: what ``frames_per_second`` says, or 2.
        frames_per_second: pictures in a second of the clip, whatever the film has; None: ``num_frames / seconds``. VideoMAE takes 16, every
            4th of films of about 30: 7.5.
        flip: probability of a horizontal flip of the whole clip. Set 0 where left and right differ in meaning.
        channels: 1 for grey, 3 for colour.
        crop: what part of the pictures is shown in training; None: the largest square, at any place.
        num_clips: of a film, in evaluation. VideoMAE: 5, for Something-Something 2.
        num_crops: of each of these, at equal distances along the longer side. VideoMAE: 3.
        min_seconds: shorter films are refused.
        max_seconds: longer films are refused.
        max_pixels: films with larger pictures are refused before they are decoded.
        max_bytes: of a file, at most.

    Raises:
        ValueError: a setting outside its range, or both ``seconds`` and ``frames_per_second``.
    """

    extensions: ClassVar[tuple[str, ...]] = ("mp4", "avi", "mkv", "webm", "mov", "mpg", "mpeg")

    def __init__(
        self,
        size: int = 224,
        num_frames: int = 16,
        seconds: float | None = None,
        frames_per_second: float | None = None,
        flip: float = 0.5,
        channels: Literal[1, 3] = 3,
        crop: Crop | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
        min_seconds: float = 0.0,
        max_seconds: float = 6 * 3600.0,
        max_pixels: int = 2**24,
        max_bytes: int = 2**31,
    ) -> None:
        if min(size, num_frames, num_clips, num_crops) < 1:
            given = f"size {size}, num_frames {num_frames}, num_clips {num_clips} and num_crops {num_crops}"
            raise ValueError(f"size, num_frames, num_clips and num_crops must be at least 1, got {given}.")
        if not 0 <= flip <= 1:
            raise ValueError(f"flip must be a probability in [0, 1], got {flip}.")
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (colour), got {channels}.")
        if not 0 <= min_seconds <= max_seconds:
            raise ValueError(f"min_seconds must be in [0, max_seconds], got min_seconds {min_seconds} and max_seconds {max_seconds}.")
        self.seconds = _seconds(num_frames, seconds, frames_per_second)
        self.size, self.num_frames, self.flip, self.channels, self.min_seconds = size, num_frames, flip, channels, min_seconds
        self.crop, self.num_clips, self.num_crops = crop or RandomSquare(), num_clips, num_crops
        self.limits = VideoLimits(max_pixels=max_pixels, max_seconds=max_seconds, max_bytes=max_bytes)

    @property
    def num_views(self) -> int:
        """Views of a film, in evaluation; see ``Transform.num_views``."""
        return self.num_clips * self.num_crops

    def decode(self, data: bytes) -> Film:
        """Open the film: its pictures are decoded when the clip is known.

        Raises:
            ValueError: ``open_film`` refuses it, or it is shorter than ``min_seconds``.
        """
        film = open_film(data, self.limits)
        if film.header.seconds < self.min_seconds:
            raise ValueError(f"a film of {film.header.seconds:.3f} s; at least min_seconds {self.min_seconds} are wanted.")
        return film

    def describe(self, data: bytes) -> Mapping[str, float | Moments]:
        """Return length, sides and rate; see ``describe_film``."""
        return describe_film(data, self.limits)

    def __call__(self, decoded: Film, generator: torch.Generator, train: bool) -> Item:
        """Return ``(num_frames, channels, size, size)`` uint8; in evaluation with several views, these along a first axis.

        Raises:
            ValueError: the pictures of the clip cannot be decoded.
        """
        if not train:
            views = [view for share in _shares(self.num_clips) for view in self._views(decoded, share, self._squares)]
            return Item(torch.stack(views) if len(views) > 1 else views[0].contiguous())
        start, flipped = torch.rand(2, generator=generator).tolist()
        (clip,) = self._views(decoded, start, lambda height, width: [self.crop(height, width, generator)])
        return Item((clip.flip(-1) if flipped < self.flip else clip).contiguous())

    def _squares(self, height: int, width: int) -> list[Window]:
        """Return the squares of evaluation."""
        return [square_at(height, width, share, share) for share in _shares(self.num_crops)]

    def _views(self, film: Film, share: float, windows_of: Callable[[int, int], list[Window]]) -> list[UInt8[Tensor, "f c s s"]]:
        """Return parts of one clip.

        Args:
            film: what is read.
            share: of the free play, where the clip starts.
            windows_of: height and width of the pictures, which are known when the first is there -> the parts.
        """
        length = min(self.seconds, film.header.seconds)
        start = share * (film.header.seconds - length)
        times = [start + number * length / self.num_frames for number in range(self.num_frames)]
        at_once = max(1, DECODED_VALUES // (3 * film.header.width * film.header.height))
        windows: list[Window] = []
        parts = []
        for first in range(0, len(times), at_once):
            pictures = clip_of(film, times[first : first + at_once], self.limits)
            windows = windows or windows_of(*pictures.shape[2:])
            parts.append([self._coloured(cut(pictures, window, self.size)) for window in windows])
        return [torch.cat(view) for view in zip(*parts, strict=True)]

    def _coloured(self, pictures: UInt8[Tensor, "f 3 s s"]) -> UInt8[Tensor, "f c s s"]:
        if self.channels == 3:
            return pictures
        return (pictures.float() * torch.tensor(GREY)[:, None, None]).sum(1, keepdim=True).round().to(torch.uint8)


def _seconds(num_frames: int, seconds: float | None, frames_per_second: float | None) -> float:
    """Return how long a clip is."""
    if seconds is not None and frames_per_second is not None:
        raise ValueError(f"seconds and frames_per_second say the same, set one of them; got {seconds} and {frames_per_second}.")
    for name, value in (("seconds", seconds), ("frames_per_second", frames_per_second)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0, got {value}.")
    if frames_per_second is not None:
        return num_frames / frames_per_second
    return SECONDS if seconds is None else seconds


def _shares(count: int) -> list[float]:
    """Return this many equal steps from 0 to 1; for one, the middle."""
    return [0.5] if count == 1 else [number / (count - 1) for number in range(count)]
