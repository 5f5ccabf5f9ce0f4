"""Film files -> clips of a fixed number of square pictures.

Letters in shapes: f frames, h height, w width, s side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F

from multimodal.batch import Item
from multimodal.protocols import Moments, Transform
from multimodal.tokenizers.video.decode import Film, VideoLimits, clip_of, open_film
from multimodal.tokenizers.video.describe import describe_film

DECODED_VALUES = 2**27  # of pictures in full size that are held at once


class VideoTransform(Transform):
    """Pictures at equal distances over some seconds of a film, resized so that the shorter side fits and cropped to a square.

    In training the start, the place of the square and a flip are drawn at random; in evaluation clip and square are central. Of a film
    shorter than the clip, the pictures are spread over the whole of it. The result is uint8; normalisation happens on the device.

    Args:
        size: side of a picture, in pixels.
        num_frames: pictures of a clip.
        seconds: time from the first picture to where the one after the last would be.
        flip: probability of a horizontal flip of the whole clip. Set 0 where left and right differ in meaning.
        min_seconds: shorter films are refused.
        max_seconds: longer films are refused.
        max_pixels: films with larger pictures are refused before they are decoded.
        max_bytes: of a file, at most.
    """

    extensions: ClassVar[tuple[str, ...]] = ("mp4", "avi", "mkv", "webm", "mov", "mpg", "mpeg")

    def __init__(
        self,
        size: int = 224,
        num_frames: int = 16,
        seconds: float = 2.0,
        flip: float = 0.5,
        min_seconds: float = 0.0,
        max_seconds: float = 6 * 3600.0,
        max_pixels: int = 2**24,
        max_bytes: int = 2**31,
    ) -> None:
        if size < 1 or num_frames < 1:
            raise ValueError(f"size and num_frames must be at least 1, got size {size} and num_frames {num_frames}.")
        if not seconds > 0:
            raise ValueError(f"seconds must be above 0, got {seconds}.")
        if not 0 <= flip <= 1:
            raise ValueError(f"flip must be a probability in [0, 1], got {flip}.")
        if not 0 <= min_seconds <= max_seconds:
            raise ValueError(f"min_seconds must be in [0, max_seconds], got min_seconds {min_seconds} and max_seconds {max_seconds}.")
        self.size, self.num_frames, self.seconds, self.flip, self.min_seconds = size, num_frames, seconds, flip, min_seconds
        self.limits = VideoLimits(max_pixels=max_pixels, max_seconds=max_seconds, max_bytes=max_bytes)

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
        """Return ``(num_frames, 3, size, size)`` uint8.

        Raises:
            ValueError: the pictures of the clip cannot be decoded.
        """
        draws = torch.rand(4, generator=generator).tolist() if train else [0.5, 0.5, 0.5, 1.0]
        length = min(self.seconds, decoded.header.seconds)
        start = draws[0] * (decoded.header.seconds - length)
        times = [start + number * length / self.num_frames for number in range(self.num_frames)]
        at_once = max(1, DECODED_VALUES // (3 * decoded.header.width * decoded.header.height))
        groups = (times[first : first + at_once] for first in range(0, len(times), at_once))
        pictures = torch.cat([_square(clip_of(decoded, group, self.limits), self.size, *draws[1:3]) for group in groups])
        return Item((pictures.flip(-1) if draws[3] < self.flip else pictures).contiguous())


def _square(pictures: UInt8[Tensor, "f 3 h w"], size: int, down: float, right: float) -> UInt8[Tensor, "f 3 s s"]:
    """Cut the square at the shares ``down`` and ``right`` of the free play, and resize it."""
    height, width = pictures.shape[2:]
    side = min(height, width)
    top, left = round(down * (height - side)), round(right * (width - side))
    square = pictures[..., top : top + side, left : left + side]
    return F.interpolate(square, size=(size, size), mode="bicubic", antialias=True)
