"""Measurements of a sound file."""

from __future__ import annotations

from multimodal.protocols import Moments
from multimodal.tokenizers.audio.decode import AudioLimits, decode_audio


def describe_audio(data: bytes, limits: AudioLimits | None = None) -> dict[str, float | Moments]:
    """Return the length in seconds, the sample rate in Hz, the number of channels, and the moments of the mean of the channels.

    Raises:
        ValueError: as ``decode_audio``.
    """
    waveform, sample_rate_hz = decode_audio(data, limits)
    values = waveform.mean(0).double()
    moments = Moments(len(values), (values.sum().item(),), (values.square().sum().item(),))
    return {"seconds": len(values) / sample_rate_hz, "sample rate": sample_rate_hz, "channels": len(waveform), "amplitude": moments}
