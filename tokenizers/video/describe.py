"""Measurements of a film, by its header."""

from __future__ import annotations

from multimodal.tokenizers.ffmpeg import open_media
from multimodal.tokenizers.video.decode import VideoLimits, open_film


def describe_film(data: bytes, limits: VideoLimits | None = None) -> dict[str, float]:
    """Return the length in seconds, width and height of the stored pictures, and, where the file says them, pictures a second.

    Raises:
        ValueError: as ``open_film``.
    """
    header = open_film(data, limits).header
    measured: dict[str, float] = {"seconds": header.seconds, "width": header.width, "height": header.height}
    with open_media(data) as container:
        rate = container.streams.video[0].average_rate
    if rate:
        measured |= {"frames per second": float(rate), "frames": round(header.seconds * rate)}
    return measured
