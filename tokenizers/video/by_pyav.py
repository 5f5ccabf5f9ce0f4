"""Films through PyAV, which brings FFmpeg along."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence

import av
import numpy as np
import torch
from av import Packet, VideoFrame
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8
from torch import Tensor

from multimodal.tokenizers.ffmpeg import open_media, reading
from multimodal.tokenizers.video.decode import EARLY_S, TOLERANCE_S, Film, FilmHeader, cut_off
from multimodal.tokenizers.video.plan import Unplanned, runs_for, shown_at

SAY_WHAT_IS_REFERRED_TO = frozenset({"h264", "mpeg1video", "mpeg2video", "mpeg4"})  # HEVC says it for the highest temporal layer only


class PyAVFilm(Film):
    """A film opened by PyAV; see ``Film``.

    The packets of a clip are read first. Their times tell which pictures are wanted, so that only those are decoded, and what they refer to.

    Args:
        data: the file.

    Raises:
        ValueError: it is damaged or has no pictures.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._converter = VideoReformatter()  # one for all pictures: to set one up takes longer than to convert a picture
        with reading():
            self._open()
            context = self._stream.codec_context
            self.header = FilmHeader(context.width, context.height, self._seconds())

    def _open(self) -> None:
        self._container = open_media(self._data)
        self._stream = _film_stream(self._container)
        self._stream.codec_context.thread_count = 1  # the cores are the data workers'
        self._begin = self._stream.start_time or 0

    def _open_again(self) -> None:
        self._container.close()
        self._open()

    def pictures_at(self, times_s: Sequence[float]) -> UInt8[Tensor, "f 3 h w"]:
        """Return the pictures that are shown at ascending times; see ``Film``."""
        with reading():
            try:
                return self._stacked(self._planned(times_s), len(times_s))
            except (Unplanned, av.InvalidDataError):  # pictures without times, or lost: what can be decoded decides
                self._open_again()
                return self._stacked(self._found(times_s), len(times_s))

    def _stacked(self, frames: Iterable[VideoFrame], count: int) -> UInt8[Tensor, "f 3 h w"]:
        shown = np.empty((0,), np.uint8)
        for number, frame in enumerate(frames):
            picture = self._pixels(frame)
            if not number:
                shown = np.empty((count, *picture.shape), np.uint8)
            if picture.shape != shown.shape[1:]:
                raise ValueError(f"its pictures change their size, from {shown.shape[1:3]} to {picture.shape[:2]}.")
            shown[number] = picture
        return torch.from_numpy(shown).permute(0, 3, 1, 2)  # f h w c -> f c h w

    def _pixels(self, frame: VideoFrame) -> np.ndarray:
        """Return ``(height, width, 3)``, turned as the film says."""
        turns = round(frame.rotation / 90) % 4
        pixels = self._converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return np.rot90(pixels, turns) if turns else pixels

    def _planned(self, times_s: Sequence[float]) -> Iterator[VideoFrame]:
        """Yield the picture of each time, having decoded only what it rests on.

        Raises:
            Unplanned: the packets do not tell enough, or other pictures come out than they announce.
        """
        ticks_per_s = float(1 / self._stream.time_base)
        moments = [self._begin + math.floor((time + EARLY_S) * ticks_per_s) for time in times_s]
        self._seek(times_s[0])
        try:
            packets = self._packets(moments[-1])
            due = shown_at(packets, moments)
            runs = runs_for(packets, set(due))
        except Unplanned:  # a file without an index: FFmpeg guesses places, and may land too late
            self._open_again()
            packets = self._packets(moments[-1])
            due = shown_at(packets, moments)
            runs = runs_for(packets, set(due))
        ...
