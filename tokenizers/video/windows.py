"""Films -> clips one after the other, in a single pass over the film.

Letters in shapes: f frames, h height, w width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F

from multimodal.clips.interfaces import CutClip, Windows
from multimodal.tokenizers.video.decode import EARLY_S, VideoLimits, open_film


class Window(NamedTuple):
    """When a clip is.

    Args:
        start_s: of its first picture, from the film's first.
        end_s: where the picture after its last one would be, or where the film ends.
        times_s: of its pictures, ascending.
    """

    start_s: float
    end_s: float
    times_s: list[float]


class ClipWindows(Windows):
    """Windows of equal length over a whole film, by default VideoBERT's (https://arxiv.org/abs/1904.01766): 30 pictures, 20 a second.

    Pictures are resized as they come, so that what is held is one clip in the size that the extractor sees, and one picture in its
    own. A film is decoded once, from its beginning to its end. Each moment shows the picture that is on display then, whatever rate the
    film has.

    Args:
        num_frames: pictures of a clip.
        frames_per_second: pictures in a second of a clip.
        stride_s: seconds from the start of a clip to that of the next; None: its length, so that clips neither overlap nor leave gaps.
        min_share: a window at the end of the film is kept if at least this share of its pictures is in the film, in (0, 1]; the last
            picture fills it up. 1: whole windows only.
        resize: side in pixels of the square that pictures are squeezed to (torchvision's way with its models of films), without regard to
            their proportions; with ``keep_proportions``, of their shorter side.
        keep_proportions: whether pictures keep them.
        size: side of the square that is cut from the middle, at most ``resize``.
        antialias: whether details that the smaller picture cannot show are blurred before; torchvision's models of films saw them jagged.
        max_seconds: longer films are refused.
        max_pixels: films with larger pictures are refused before they are decoded.
        max_bytes: of a file, at most.

    Raises:
        ValueError: a setting outside its range.
    """

    extensions: ClassVar[tuple[str, ...]] = ("mp4", "avi", "mkv", "webm", "mov", "mpg", "mpeg")

    def __init__(
        self,
        num_frames: int = 30,
        frames_per_second: float = 20.0,
        stride_s: float | None = None,
        min_share: float = 0.5,
        resize: int = 256,
        keep_proportions: bool = False,
        size: int = 224,
        antialias: bool = False,
        max_seconds: float = 6 * 3600.0,
        max_pixels: int = 2**24,
        max_bytes: int = 2**31,
    ) -> None:
        if num_frames < 1 or not frames_per_second > 0:
            raise ValueError(f"num_frames must be at least 1 and frames_per_second above 0, got {num_frames} and {frames_per_second}.")
        if stride_s is not None and not stride_s > 0:
            raise ValueError(f"stride_s must be above 0, or None for the length of a clip; got {stride_s}.")
        if not 0 < min_share <= 1:
            raise ValueError(f"min_share must be in (0, 1], got {min_share}.")
        if not 1 <= size <= resize:
            raise ValueError(f"size must be at least 1 and at most resize, got size {size} and resize {resize}.")
        self.num_frames, self.frames_per_second, self.min_share = num_frames, frames_per_second, min_share
        self.stride_s = num_frames / frames_per_second if stride_s is None else stride_s
        self.resize, self.keep_proportions, self.size, self.antialias = resize, keep_proportions, size, antialias
        self.limits = VideoLimits(max_pixels=max_pixels, max_seconds=max_seconds, max_bytes=max_bytes)

    def windows(self, seconds: float) -> Iterator[Window]:
        """Yield the windows of a film of so many seconds."""
        number = 0
        while (start := number * self.stride_s) < seconds - EARLY_S:
            times = [start + frame / self.frames_per_second for frame in range(self.num_frames)]
            there = sum(time < seconds - EARLY_S for time in times)
            if there < self.min_share * self.num_frames:
                return  # later ones have fewer
            end = min(start + self.num_frames / self.frames_per_second, seconds)
            yield Window(start, end, [min(time, times[there - 1]) for time in times])
            number += 1

    def __call__(self, data: bytes) -> Iterator[CutClip]:
        """Yield the clips of a film, ``(num_frames, 3, size, size)`` uint8.

        Raises:
            ValueError: ``open_film`` refuses the film, it is shorter than a window has to be, or its pictures end before it says.
        """
        film = open_film(data, self.limits)
        seconds = film.header.seconds
        if next(self.windows(seconds), None) is None:
            needed = f"{self.min_share:.0%} of {self.num_frames} pictures at {self.frames_per_second:g} a second"
            raise ValueError(f"a film of {seconds:.3f} s has no clip: it takes {needed}.")
        windows = list(self.windows(seconds))
        moments = sorted({time for window in windows for time in window.times_s})
        cut, waiting = self._cut_in_turn(film.pictures_in_turn(moments)), iter(moments)
        kept: dict[float, Tensor] = {}
        for window in windows:
            kept = {time: picture for time, picture in kept.items() if time >= window.start_s}  # what overlaps shows again
            while window.times_s[-1] not in kept:
                kept[next(waiting)] = next(cut)
            yield CutClip(window.start_s, window.end_s, torch.stack([kept[time] for time in window.times_s]))

    def _cut_in_turn(self, pictures: Iterator[Tensor]) -> Iterator[Tensor]:
        """Yield small pictures; one that is on display at several moments is resized once."""
        last: Tensor | None = None
        small = torch.empty(0)
        for picture in pictures:
            if picture is not last:
                last, small = picture, self._cut(picture)
            yield small

    def _cut(self, picture: UInt8[Tensor, "3 h w"]) -> UInt8[Tensor, "3 size size"]:
        height, width = picture.shape[1:]
        if self.keep_proportions:
            short = min(height, width)
            sides = (max(self.resize, round(height * self.resize / short)), max(self.resize, round(width * self.resize / short)))
        else:
            sides = (self.resize, self.resize)
        small = F.interpolate(picture[None], sides, mode="bilinear", antialias=self.antialias)[0]
        top, left = (round((side - self.size) / 2) for side in small.shape[1:])
        return small[:, top : top + self.size, left : left + self.size]

    def example(self) -> UInt8[Tensor, "f 3 size size"]:
        """Return a black clip."""
        return torch.zeros(self.num_frames, 3, self.size, self.size, dtype=torch.uint8)

    def pictures_of(self, data: bytes, times_s: list[float], height: int) -> UInt8[Tensor, "b 3 height width"]:
        """Return the pictures on display at ascending moments, in their proportions.

        Raises:
            ValueError: ``open_film`` refuses the film, or its pictures end before a moment.
        """
        film = open_film(data, self.limits)
        small = []
        for time in times_s:
            picture = film.pictures_at([time])
            width = max(1, round(height * picture.shape[3] / picture.shape[2]))
            small.append(F.interpolate(picture, (height, width), mode="bilinear", antialias=True)[0])
        return torch.stack(small)
