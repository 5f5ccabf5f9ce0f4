"""Sound files -> waveforms: limits read from the header first, cut-off files noticed.

Letters in shapes: c channels, n samples.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import av
import numpy as np
import soundfile
import torch
from jaxtyping import Float32
from torch import Tensor

from multimodal.tokenizers.containers import check_complete, container_of
from multimodal.tokenizers.ffmpeg import open_media, reading, torchcodec_said, torchcodec_works

SOUNDFILE_READS = ("wav", "flac", "aiff", "mp3")  # faster than FFmpeg; Ogg is faster the other way
SAYS_DURATION = ("mov", "matroska")  # of other files FFmpeg estimates it from the number of bytes
TOLERANCE_S = 0.2  # durations of MP4, WebM and MP3 count what encoders add at both ends, or not
UNKNOWN_FRAMES = 2**40  # libsndfile's count where the header has none is above this
WHOLE_NUMBERS = ("PCM_16", "PCM_24", "PCM_32", "PCM_S8", "PCM_U8")
LOUDEST = 2.0**31  # of whole numbers that were saved as floats


class Header(NamedTuple):
    """What a file says of itself.

    Args:
        sample_rate_hz: samples a second.
        channels: number of them.
        frames: samples of each channel; None: not said.
        exact: whether it is said to the sample.
        whole_numbers: whether samples are stored so, and cannot be infinite.
    """

    sample_rate_hz: int
    channels: int
    frames: int | None = None
    exact: bool = False
    whole_numbers: bool = False


@dataclass(frozen=True)
class AudioLimits:
    """What is refused, as far as possible from the header alone.

    Args:
        min_seconds: of sound, at least; a file without samples is always refused.
        max_seconds: of sound, at most.
        max_channels: at most.
        sample_rates_hz: lowest and highest.
        max_values: samples of all channels, at most; 2^26 take 256 MiB.
        max_bytes: of the file, at most.
    """

    min_seconds: float = 0.0
    max_seconds: float = 3600.0
    max_channels: int = 16
    sample_rates_hz: tuple[int, int] = (1000, 768_000)
    max_values: int = 2**26
    max_bytes: int = 2**28

    def check(self, header: Header) -> None:
        """Refuse a file by what its header says.

        Raises:
            ValueError: naming the limit, the value and what the file says.
        """
        low, high = self.sample_rates_hz
        if not low <= header.sample_rate_hz <= high:
            raise ValueError(f"a sample rate of {header.sample_rate_hz} Hz; it must be in [{low}, {high}].")
        if not 1 <= header.channels <= self.max_channels:
            raise ValueError(f"{header.channels} channels; at least 1 and at most max_channels {self.max_channels} are allowed.")
        if header.frames is not None and header.frames > self.most_frames(header):
            seconds, values = header.frames / header.sample_rate_hz, header.frames * header.channels
            raise ValueError(f"{seconds:.1f} s or {values} values are over max_seconds {self.max_seconds} or max_values {self.max_values}.")

    def most_frames(self, header: Header) -> int:
        """Return how many samples of each channel are allowed."""
        return min(int(self.max_seconds * header.sample_rate_hz), self.max_values // header.channels)


def decode_audio(data: bytes, limits: AudioLimits | None = None) -> tuple[Float32[Tensor, "c n"], int]:
    """Return the waveform of a sound file, full scale at ±1, and its sample rate in Hz. Its channels may lie innermost in memory.

    WAV, FLAC, AIFF and MP3 are read by soundfile; Ogg (Vorbis, Opus) by torchcodec where it works, else by PyAV, and where they
    cannot, by soundfile; M4A, WebM, the sound of films and raw GSM by PyAV. The contents tell which it is, the name is not asked.

    Args:
        data: the file.
        limits: what is refused; None: ``AudioLimits()``.

    Raises:
        ValueError: the file is no sound, is damaged or cut off, is over a limit, or has samples that are not finite.
    """
    limits = limits or AudioLimits()
    if len(data) > limits.max_bytes:
        raise ValueError(f"a sound of {len(data)} bytes is over max_bytes {limits.max_bytes}.")
    name = container_of(data)
    if name is None:
        raise ValueError(f"not a sound that is known ({len(data)} bytes).")
    check_complete(data)
    header, waveform = _read(name, data, limits)
    _check_waveform(waveform, header, limits)
    return waveform, header.sample_rate_hz


def _read(name: str, data: bytes, limits: AudioLimits) -> tuple[Header, Tensor]:
    if name in SOUNDFILE_READS and (name != "mp3" or _counts_frames(data)):
        found = _by_soundfile(data, limits, exact=name != "mp3")
        if found is not None:
            return found
    try:
        if name == "ogg" and torchcodec_works():
            return _by_torchcodec(data, limits)
        return _by_pyav(data, limits, says_duration=name in SAYS_DURATION)
    except ValueError:
        found = _second_opinion(data, limits) if name == "ogg" else None
        if found is None:
            raise
        return found


def _second_opinion(data: bytes, limits: AudioLimits) -> tuple[Header, Tensor] | None:
    """Read Vorbis that FFmpeg does not: it lacks a kind of floor that old encoders used."""
    try:
        return _by_soundfile(data, limits, exact=False)
    except ValueError:
        return None


def _counts_frames(data: bytes) -> bool:
    """Return whether an MP3 file says how long it is; libsndfile would guess, and stop there."""
    start = 0
    if data.startswith(b"ID3") and len(data) > 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    first_frame = data[start : start + 200]
    return b"Xing" in first_frame or b"Info" in first_frame


def _check_waveform(waveform: Tensor, header: Header, limits: AudioLimits) -> None:
    frames = waveform.shape[1]
    tolerance = 0 if header.exact else int(TOLERANCE_S * header.sample_rate_hz)
    if header.frames is not None and frames < header.frames - tolerance:
        raise ValueError(f"cut off or damaged: {frames} of the {header.frames} samples that its header announces could be decoded.")
    if frames < max(1, limits.min_seconds * header.sample_rate_hz):
        wanted = f"at least 1 and min_seconds {limits.min_seconds} are wanted"
        raise ValueError(f"{frames} samples at {header.sample_rate_hz} Hz; {wanted}.")
    if header.whole_numbers:
        return
    dense = waveform.T if waveform.T.is_contiguous() else waveform
    low, high = (extreme.item() for extreme in dense.aminmax())
    if not -LOUDEST <= low <= high <= LOUDEST:  # not so either where a sample is NaN
        raise ValueError(f"its samples reach from {low} to {high}; they must be finite, and full scale is ±1.")


def _by_soundfile(data: bytes, limits: AudioLimits, exact: bool) -> tuple[Header, Tensor] | None:
    """Read with libsndfile; None where the file is one for FFmpeg."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            header = Header(file.samplerate, file.channels, file.frames, exact)
            if not file.seekable() or file.frames > UNKNOWN_FRAMES:
                return None
            limits.check(header)
            header = header._replace(whole_numbers=file.subtype in WHOLE_NUMBERS)
            short = file.subtype == "PCM_16" and file.format != "FLAC"  # torch makes floats of them four times as fast as libsndfile
            samples = torch.from_numpy(file.read(dtype="int16" if short else "float32", always_2d=True))
    except soundfile.SoundFileError as error:
        raise ValueError(f"damaged sound: {getattr(error, 'error_string', error) or 'it cannot be decoded.'}") from error
    return header, (samples.float().mul_(2.0**-15) if short else samples).T


def _by_torchcodec(data: bytes, limits: AudioLimits) -> tuple[Header, Tensor]:
    from torchcodec.decoders import AudioDecoder

    try:
        decoder = AudioDecoder(data)
        said = decoder.metadata
        header = Header(said.sample_rate or 0, said.num_channels or 0)
        limits.check(header._replace(frames=_frames(said.duration_seconds_from_header, header)))
        most = limits.most_frames(header) / header.sample_rate_hz
        waveform = decoder.get_samples_played_in_range(stop_seconds=most + 1).data
    except (RuntimeError, TypeError, IndexError) as error:  # what torchcodec makes of FFmpeg's errors
        raise ValueError(f"damaged sound: {torchcodec_said(error)}") from error
    limits.check(header._replace(frames=waveform.shape[1]))
    return header, waveform


def _by_pyav(data: bytes, limits: AudioLimits, says_duration: bool) -> tuple[Header, Tensor]:
    with open_media(data) as container, reading():
        if not container.streams.audio:
            raise ValueError(f"no sound in it; its streams: {', '.join(stream.type for stream in container.streams) or 'none'}.")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise ValueError("its sound is of no codec that is known, or damaged.")
        header = Header(stream.rate or 0, stream.channels)
        seconds = stream.duration * stream.time_base if stream.duration and stream.time_base else (container.duration or 0) / 1e6
        limits.check(header._replace(frames=_frames(float(seconds), header)))
        parts, frames = [], 0
        for part in _floats(container.decode(stream)):
            frames += part.shape[1]
            limits.check(header._replace(frames=frames))
            parts.append(part)
    waveform = torch.from_numpy(np.concatenate(parts, axis=1)) if parts else torch.zeros(header.channels, 0)
    return header._replace(frames=_frames(float(seconds), header) if says_duration else None), waveform


def _floats(frames: Iterator[av.AudioFrame]) -> Iterator[np.ndarray]:
    """Yield the samples of frames of any format as ``(channels, samples)`` float32."""
    resampler = av.AudioResampler(format="fltp")
    for frame in frames:
        yield from (converted.to_ndarray() for converted in resampler.resample(frame))
    yield from (converted.to_ndarray() for converted in resampler.resample(None))


def _frames(seconds: float | None, header: Header) -> int | None:
    return int(seconds * header.sample_rate_hz) if seconds and seconds > 0 else None
