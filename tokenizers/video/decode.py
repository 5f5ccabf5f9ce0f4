"""Films -> clips: pictures by their time of display, without decoding what lies before or after.

Letters in shapes: f frames, h height, w width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import UInt8
from torch import Tensor

from multimodal.tokenizers.containers import check_complete, container_of

CONTAINERS = ("avi", "mov", "matroska", "mpeg", "mpegvideo", "mpegts", "ogg")
TOLERANCE_S = 0.5  # that the last picture may stay longer than it says
EARLY_S = 1e-3  # a picture that is due so soon is shown: Matroska rounds times to milliseconds


class FilmHeader(NamedTuple):
    """What a film says of itself.

    Args:
        width: of a picture as it is stored, in pixels; phones store them lying, and say how to turn them.
        height: likewise.
        seconds: from the display of the first picture to the end of the last one's.
    """

    width: int
    height: int
    seconds: float


class Film(ABC):
    """An opened film."""

    header: FilmHeader

    @abstractmethod
    def pictures_at(self, times_s: Sequence[float]) -> UInt8[Tensor, "f 3 h w"]:
        """Return the pictures that are shown at ascending times, counted from the first picture's.

        Raises:
            ValueError: the film is damaged, or its pictures end more than half a second before a time.
        """

    def pictures_in_turn(self, times_s: Sequence[float]) -> Iterator[UInt8[Tensor, "3 h w"]]:
        """Yield the pictures of ``pictures_at`` one by one: for many times all over a film, whose pictures no memory holds.

        Only one such iterator of a film may be in use, and nothing else of the film meanwhile.

        Raises:
            ValueError: as ``pictures_at``, when the picture is reached.
        """
        for time in times_s:
            yield self.pictures_at([time])[0]


@dataclass(frozen=True)
class VideoLimits:
    """What is refused, from the header alone.

    Args:
        max_pixels: width times height, at most.
        max_seconds: length of a film, at most.
        max_values: of a clip, at most: frames times pixels times 3; one takes a byte.
        max_bytes: of the file, at most.
    """

    max_pixels: int = 2**24
    max_seconds: float = 6 * 3600.0
    max_values: int = 2**28
    max_bytes: int = 2**31

    def check(self, header: FilmHeader) -> None:
        """Refuse a film by its header.

        Raises:
            ValueError: naming the limit and the value.
        """
        if not 0 < header.width * header.height <= self.max_pixels:
            raise ValueError(f"{header.width} x {header.height} pixels; at least one and at most max_pixels {self.max_pixels} are allowed.")
        if not 0 < header.seconds <= self.max_seconds:
            raise ValueError(f"a film of {header.seconds:.2f} s; it must be longer than 0 and at most max_seconds {self.max_seconds}.")

    def check_clip(self, header: FilmHeader, num_frames: int) -> None:
        """Refuse a clip that would not fit into ``max_values``.

        Raises:
            ValueError: naming the limit and the value.
        """
        values = num_frames * 3 * header.width * header.height
        if values > self.max_values:
            size = f"{num_frames} frames of {header.width} x {header.height} pixels"
            raise ValueError(f"{size} are {values} values, over max_values {self.max_values}.")


def open_film(data: bytes, limits: VideoLimits | None = None) -> Film:
    """Open a film.

    Args:
        data: the file: AVI, MP4 and its kin, Matroska and WebM, MPEG programs and transport streams, Ogg; its contents tell which.
        limits: what is refused; None: ``VideoLimits()``.

    Raises:
        ValueError: the file is no film, has no pictures, is damaged or cut off, or is over a limit.
    """
    limits = limits or VideoLimits()
    if len(data) > limits.max_bytes:
        raise ValueError(f"a film of {len(data)} bytes is over max_bytes {limits.max_bytes}.")
    name = container_of(data)
    if name is None:
        raise ValueError(f"not a film that is known ({len(data)} bytes).")
    if name not in CONTAINERS:
        raise ValueError(f"no video stream in it: a {name} file holds sound.")
    check_complete(data)
    from multimodal.tokenizers.video.by_pyav import PyAVFilm

    film = PyAVFilm(data)
    limits.check(film.header)
    return film


def decode_clip(
    data: bytes, start_s: float, num_frames: int, frames_per_second: float, limits: VideoLimits | None = None
) -> UInt8[Tensor, "f 3 h w"]:
    """Return pictures at equal distances in time, each the one that is shown then; so variable frame rates come out right.

    Only pictures of the clip, and those that they refer to, are decoded.

    Args:
        data: the file; see ``open_film``.
        start_s: time of the first picture, in seconds from the film's first.
        num_frames: pictures of the clip.
        frames_per_second: pictures in a second of the clip, whatever the film has.
        limits: what is refused; None: ``VideoLimits()``.

    Raises:
        ValueError: ``open_film`` refuses the film, it has no such clip, the clip is over a limit, or the film ends before it says.
    """
    film = open_film(data, limits)
    return clip_of(film, clip_times(start_s, num_frames, frames_per_second), limits or VideoLimits())


def clip_times(start_s: float, num_frames: int, frames_per_second: float) -> list[float]:
    """Return the times of the pictures of a clip.

    Raises:
        ValueError: no frames, a start before 0, or a rate that is not positive.
    """
    if num_frames < 1 or not frames_per_second > 0 or not 0 <= start_s < math.inf:
        given = f"num_frames {num_frames}, frames_per_second {frames_per_second}, start_s {start_s}"
        raise ValueError(f"a clip has at least 1 frame, a rate above 0 and a start of at least 0 s, got {given}.")
    return [start_s + number / frames_per_second for number in range(num_frames)]


def clip_of(film: Film, times_s: Sequence[float], limits: VideoLimits) -> UInt8[Tensor, "f 3 h w"]:
    """Return the pictures of an opened film at ascending times; see ``decode_clip``."""
    limits.check_clip(film.header, len(times_s))
    if times_s[-1] > film.header.seconds:
        raise ValueError(f"a clip from {times_s[0]:.3f} to {times_s[-1]:.3f} s; the film has {film.header.seconds:.3f} s.")
    return film.pictures_at(times_s)


def cut_off(wanted_s: float, header: FilmHeader, end_s: float) -> ValueError:
    """Return the error of a film whose pictures end too early."""
    return ValueError(
        f"cut off or damaged: its pictures end at {end_s:.3f} of {header.seconds:.3f} s, and one at {wanted_s:.3f} s is wanted."
    )
