"""FFmpeg through PyAV, which brings it along, and through torchcodec, which reads Ogg faster where the system has FFmpeg's libraries."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import av
from av.container import InputContainer

from multimodal.tokenizers.containers import container_of

SHORTEST_WAV = b"RIFF\x2c\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\x08\0\0\0" + bytes(8)


@functools.cache
def torchcodec_works() -> bool:
    """Return whether torchcodec is installed and finds FFmpeg's libraries; tried once in a process."""
    try:
        from torchcodec.decoders import AudioDecoder

        AudioDecoder(SHORTEST_WAV)  # the libraries are loaded only here
    except (ImportError, RuntimeError, OSError):
        return False
    return True


def torchcodec_said(error: BaseException) -> str:
    """Return the reason in an error of torchcodec, without the places in its source."""
    first_line = next(iter(str(error).splitlines()), "")
    return re.sub(r"^.*\.(cpp|h):\d+, *", "", first_line) or type(error).__name__


def open_media(data: bytes) -> InputContainer:
    """Open a file of a known container with PyAV.

    FFmpeg is told the format: left to guess, it would take a text for a playlist and open the files and addresses in it.

    Raises:
        ValueError: the container is unknown or damaged.
    """
    name = container_of(data)
    if name is None:
        raise ValueError(f"of no container that is known ({len(data)} bytes).")
    with reading():
        return av.open(io.BytesIO(data), mode="r", format=name, metadata_errors="ignore")


@contextmanager
def reading() -> Iterator[None]:
    """Turn the errors of PyAV in the block into ``ValueError``."""
    try:
        yield
    except (av.FFmpegError, OSError, EOFError) as error:
        raise ValueError(f"damaged, or not readable: {getattr(error, 'strerror', None) or error}.") from error
