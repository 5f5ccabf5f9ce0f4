"""Films through torchcodec, which needs FFmpeg's libraries and is faster."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import UInt8
from torch import Tensor
from torchcodec.decoders import VideoDecoder

from multimodal.tokenizers.ffmpeg import torchcodec_said
from multimodal.tokenizers.video.decode import EARLY_S, TOLERANCE_S, Film, FilmHeader, cut_off

ERRORS = (RuntimeError, IndexError, TypeError, AssertionError, ValueError)  # what torchcodec makes of FFmpeg's
LAST_MOMENT_S = 1e-6


class TorchcodecFilm(Film):
    """A film opened by torchcodec; see ``Film``.

    Args:
        data: the file.

    Raises:
        ValueError: it is damaged or has no pictures.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self._decoder = VideoDecoder(data, num_ffmpeg_threads=1)  # the cores are the data workers'
            said = self._decoder.metadata
            self._begin, self._end = float(said.begin_stream_seconds or 0), float(said.end_stream_seconds or 0)
            announced = said.duration_seconds_from_header or 0.0
            self.header = FilmHeader(int(said.width or 0), int(said.height or 0), max(float(announced), self._end - self._begin))
        except ERRORS as error:
            raise _refusal(error) from error

    def pictures_at(self, times_s: Sequence[float]) -> UInt8[Tensor, "f 3 h w"]:
        """Return the pictures that are shown at ascending times; see ``Film``."""
        shown_s = self._end - self._begin
        if times_s[-1] > shown_s + TOLERANCE_S:
            raise cut_off(times_s[-1], self.header, shown_s)
        latest = self._end - LAST_MOMENT_S
        try:
            return self._decoder.get_frames_played_at([min(self._begin + time + EARLY_S, latest) for time in times_s]).data
        except ERRORS as error:
            raise _refusal(error) from error


def _refusal(error: BaseException) -> ValueError:
    said = torchcodec_said(error)
    return ValueError("no video stream in it." if "video stream" in said else f"damaged film: {said}")
