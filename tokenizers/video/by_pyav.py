"""Films through PyAV, which brings FFmpeg along."""

from __future__ import annotations

import math
from collections import deque
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
from multimodal.tokenizers.video.plan import UnplannedError, runs_for, shown_at

SAY_WHAT_IS_REFERRED_TO = frozenset({"h264", "mpeg1video", "mpeg2video", "mpeg4"})  # HEVC says it for the highest temporal layer only

TIMED_FROM_THE_START = ("mpeg", "mpegvideo")  # only some pictures have a time; FFmpeg counts on from there, and errs after a jump


class PyAVFilm(Film):
    """A film opened by PyAV; see ``Film``.

    The packets of a clip are read first. Their times tell which pictures are wanted: only those are decoded, and what they refer to.

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
            except (UnplannedError, av.FFmpegError):  # pictures without times, or damaged: what can be decoded decides
                self._open_again()
                return self._stacked(self._found(times_s), len(times_s))

    def pictures_in_turn(self, times_s: Sequence[float]) -> Iterator[UInt8[Tensor, "3 h w"]]:
        """Yield the pictures that are shown at ascending times, each decoded once, and the same object for all its times; see ``Film``."""
        last: VideoFrame | None = None
        picture = torch.empty(0, dtype=torch.uint8)
        frames = self._found(times_s) if times_s else iter(())
        while True:
            with reading():
                frame = next(frames, None)
                if frame is None:
                    return
                if frame is not last:
                    pixels = torch.from_numpy(np.ascontiguousarray(self._pixels(frame))).permute(2, 0, 1)  # h w c -> c h w
                    if last is not None and pixels.shape != picture.shape:
                        raise ValueError(f"its pictures change their size, from {tuple(picture.shape[1:])} to {tuple(pixels.shape[1:])}.")
                    last, picture = frame, pixels
            yield picture

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
            UnplannedError: the packets do not tell enough, or other pictures come out than they announce.
        """
        if self._ordered_by_decoding:
            raise UnplannedError
        moments = [self._begin + math.floor((time + EARLY_S) / self._stream.time_base) for time in times_s]
        self._seek(times_s[0])
        try:
            packets, due, runs = self._plan(moments)
        except UnplannedError:  # a file without an index: FFmpeg guesses places, and may land too late
            self._open_again()
            packets, due, runs = self._plan(moments)
        wanted, expected = set(due), iter(due)
        awaited = next(expected, None)
        for run in runs:
            for frame in self._decoded(packets[run.start : run.stop], wanted):
                while awaited is not None and frame.pts == awaited:
                    yield frame
                    awaited = next(expected, None)
        if awaited is not None:
            raise UnplannedError

    def _plan(self, moments: Sequence[int]) -> tuple[list[Packet[VideoStream]], list[int], list[range]]:
        """Read the packets from here to the last moment; return them, when each moment's picture is due, and the runs to decode."""
        packets, end = self._packets(moments[-1])
        due = shown_at(packets, moments)
        if (moments[-1] - end) * self._stream.time_base > TOLERANCE_S + EARLY_S:
            raise UnplannedError
        return packets, due, runs_for(packets, set(due))

    def _packets(self, last: int) -> tuple[list[Packet[VideoStream]], float]:
        """Read the packets of all pictures that are due by ``last``; return them, and when their pictures end."""
        packets: list[Packet[VideoStream]] = []
        end = -math.inf
        for packet in self._container.demux(self._stream):
            if packet.dts is None and packet.pts is None:  # after the last one
                return packets, end
            if packet.dts is not None and packet.dts > last:
                return packets, math.inf
            packets.append(packet)
            end = max(end, (packet.pts or 0) + (packet.duration or 0))
        return packets, end

    def _decoded(self, packets: Sequence[Packet[VideoStream]], wanted: Collection[int]) -> Iterator[VideoFrame]:
        """Decode a run of packets; of those whose pictures are not wanted, only what others refer to."""
        context = self._stream.codec_context
        says = context.name in SAY_WHAT_IS_REFERRED_TO
        context.flush_buffers()
        try:
            for packet in packets:
                context.skip_frame = "NONREF" if says and packet.pts not in wanted else "DEFAULT"
                yield from packet.decode()
            yield from context.decode(None)
        finally:
            context.skip_frame = "DEFAULT"
            context.flush_buffers()

    def _found(self, times_s: Sequence[float]) -> Iterator[VideoFrame]:
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
        self._seek(time_s)
        pictures = self._timed()
        first = next(pictures, None)
        if first is None or first[0] > time_s + EARLY_S:  # a file without an index: FFmpeg guesses places, and may land too late
            self._open_again()
            first = None
            pictures = self._timed()
        if first is not None:
            yield first
        yield from pictures

    def _seek(self, time_s: float) -> None:
        """Go to a key frame at or before ``time_s``, or near it."""
        if self._container.format.name in TIMED_FROM_THE_START:
            return self._open_again()
        self._container.seek(self._begin + int(time_s / self._stream.time_base), stream=self._stream)

    def _timed(self) -> Iterator[tuple[float, VideoFrame]]:
        """Yield pictures and their times; pictures of no known time are left out."""
        due: deque[int] = deque()
        for packet in self._container.demux(self._stream):
            if packet.size and packet.dts is not None:
                due.append(packet.dts)
            for frame in packet.decode():
                ticks = (due.popleft() if due else None) if self._ordered_by_decoding else frame.pts
                if ticks is not None:
                    yield float((ticks - self._begin) * self._stream.time_base), frame

    @property
    def _ordered_by_decoding(self) -> bool:
        """Whether a picture's time is that of its decoding, and those of display are the same in turn: as with H.264 in an AVI."""
        return self._container.format.name == "avi" and self._stream.codec_context.name == "h264"

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
