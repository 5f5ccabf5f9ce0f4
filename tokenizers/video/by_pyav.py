"""Films through PyAV, which brings FFmpeg along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from av import VideoFrame
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from jaxtyping import UInt8
from torch import Tensor

from multimodal.tokenizers.ffmpeg import open_media, reading
from multimodal.tokenizers.video.decode import EARLY_S, TOLERANCE_S, Film, FilmHeader, cut_off


class PyAVFilm(Film):
    """A film opened by PyAV; see ``Film``.

    Args:
        data: the file.

    Raises:
        ValueError: it is damaged or has no pictures.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        with reading():
            self._open()
            context = self._stream.codec_context
            self.header = FilmHeader(context.width, context.height, self._seconds())

    def _open(self) -> None:
        self._container = open_media(self._data)
        self._stream = _film_stream(self._container)
        self._stream.codec_context.thread_count = 1  # the cores are the data workers'
        self._begin = self._stream.start_time or 0

    def pictures_at(self, times_s: Sequence[float]) -> UInt8[Tensor, "f 3 h w"]:
        """Return the pictures that are shown at ascending times; see ``Film``."""
        shown = np.empty((0,), np.uint8)
        with reading():
            for number, frame in enumerate(self._shown_at(times_s)):
                picture = _pixels(frame)
                if not number:
                    shown = np.empty((len(times_s), *picture.shape), np.uint8)
                if picture.shape != shown.shape[1:]:
                    raise ValueError(f"its pictures change their size, from {shown.shape[1:3]} to {picture.shape[:2]}.")
                shown[number] = picture
        return torch.from_numpy(shown).permute(0, 3, 1, 2)  # f h w c -> f c h w

    def _shown_at(self, times_s: Sequence[float]) -> Iterator[VideoFrame]:
        """Yield for each time the last picture that is due by then; before the first picture, the first."""
        waiting = list(reversed(times_s))
        last, end_s = None, 0.0
        for now_s, frame in self._from(times_s[0]):
            while waiting and now_s > waiting[-1] + EARLY_S:
                waiting.pop()
                yield last or frame
            if not waiting:
                return
            last, end_s = frame, now_s + float((frame.duration or 0) * self._stream.time_base)
        while waiting:
            if last is None or waiting[-1] > end_s + TOLERANCE_S:
                raise cut_off(waiting[-1], self.header, end_s)
            waiting.pop()
            yield last

    def _from(self, time_s: float) -> Iterator[tuple[float, VideoFrame]]:
        """Yield pictures and their times from a key frame at or before ``time_s`` on."""
        self._container.seek(self._begin + int(time_s / self._stream.time_base), stream=self._stream)
        pictures = self._timed()
        first = next(pictures, None)
        if first is None or first[0] > time_s + EARLY_S:  # a file without an index: FFmpeg guesses places, and may land too late
            self._container.close()
            self._open()
            first = None
            pictures = self._timed()
        if first is not None:
            yield first
        yield from pictures

    def _timed(self) -> Iterator[tuple[float, VideoFrame]]:
        for frame in self._container.decode(self._stream):
            if frame.pts is not None:
                yield float((frame.pts - self._begin) * self._stream.time_base), frame

    def _seconds(self) -> float:
        stream, container = self._stream, self._container
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if container.duration:
            return container.duration / 1e6
        ends = [(packet.pts or 0) + (packet.duration or 0) for packet in container.demux(stream)]  # reads, decodes nothing
        return float((max(ends, default=0) - self._begin) * stream.time_base)


def _film_stream(container: InputContainer) -> VideoStream:
    films = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not films:
        raise ValueError(f"no video stream in it; its streams: {', '.join(stream.type for stream in container.streams) or 'none'}.")
    if films[0].codec_context is None:
        raise ValueError("its video stream is of no codec that is known, or damaged.")
    return films[0]


def _pixels(frame: VideoFrame) -> np.ndarray:
    """Return ``(height, width, 3)``, turned as the film says."""
    pixels = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.rot90(pixels, turns) if turns else pixels
