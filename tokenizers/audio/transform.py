"""Sound files -> crops of one channel at one sample rate.

Letters in shapes: c channels, n samples.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float32
from torch import Tensor
from torchaudio.transforms import Resample

from multimodal.batch import Item
from multimodal.protocols import Moments, Transform
from multimodal.tokenizers.audio.decode import AudioLimits, decode_audio
from multimodal.tokenizers.audio.describe import describe_audio

FILTER_VALUES = 2**20  # 44.1 to 16 kHz is 160/441, and takes a filter of 160 x 441 values; other ratios would take gigabytes

SLOWEST = 0.25


class Waveform(NamedTuple):
    """The sound of one file.

    Args:
        samples: ``(n,)`` float32, the mean of its channels.
        sample_rate_hz: of the file.
    """

    samples: Tensor
    sample_rate_hz: int


class Crop(NamedTuple):
    """A part of a sound.

    Args:
        samples: ``(n,)`` float32, at the wanted sample rate.
        start_s: where it begins in the sound, in seconds.
        speed: how many times as fast as the sound it is.
    """

    samples: Tensor
    start_s: float
    speed: float = 1.0


class AudioTransform(Transform):
    """A crop of a sound, as one channel at one sample rate. In training it is drawn at random; in evaluation it is the central one.

    Sounds shorter than the crop are taken whole. A ratio of sample rates whose terms multiply to more than a million (an odd rate, such as
    11127 Hz) is replaced by the nearest that does not; it differs by less than a ten-thousandth.

    Args:
        sample_rate_hz: of the result; files are resampled (windowed sinc of torchaudio).
        seconds: length of the crop; None: the whole sound.
        speeds: in training a sound is played so many times as fast, as one of these that is drawn; pitch and tempo change together (speed
            perturbation, Ko and others, Audio augmentation for speech recognition, Interspeech 2015). For speech: 0.9, 1 and 1.1.
        min_seconds: shorter files are refused.
        max_seconds: longer files are refused before they are decoded.
        max_channels: files with more are refused.
        max_values: samples of all channels of a file, at most; 2^26 are 25 minutes of one channel at 44.1 kHz, and take 256 MiB.
        max_bytes: of a file, at most.
    """

    extensions: ClassVar[tuple[str, ...]] = ("wav", "flac", "ogg", "opus", "mp3", "aiff", "aif", "m4a")

    def __init__(
        self,
        sample_rate_hz: int = 16_000,
        seconds: float | None = 10.0,
        speeds: Sequence[float] = (1.0,),
        min_seconds: float = 0.01,
        max_seconds: float = 3600.0,
        max_channels: int = 16,
        max_values: int = 2**26,
        max_bytes: int = 2**28,
    ) -> None:
        if not 1000 <= sample_rate_hz <= 768_000:
            raise ValueError(f"sample_rate_hz must be in [1000, 768000], got {sample_rate_hz}.")
        if seconds is not None and seconds * sample_rate_hz < 1:
            raise ValueError(f"seconds must be at least one sample of {1 / sample_rate_hz:.6f} s, or null for whole sounds, got {seconds}.")
        if not 0 <= min_seconds <= max_seconds:
            raise ValueError(f"min_seconds must be in [0, max_seconds], got min_seconds {min_seconds} and max_seconds {max_seconds}.")
        if not speeds or not all(SLOWEST <= speed <= 1 / SLOWEST for speed in speeds):
            raise ValueError(f"speeds must be at least one, in [{SLOWEST:g}, {1 / SLOWEST:g}], got {tuple(speeds)}.")
        self.sample_rate_hz, self.seconds, self.speeds = sample_rate_hz, seconds, tuple(speeds)
        self.limits = AudioLimits(
            min_seconds=min_seconds, max_seconds=max_seconds, max_channels=max_channels, max_values=max_values, max_bytes=max_bytes
        )

    def decode(self, data: bytes) -> Waveform:
        """Return the sound as one channel, at the sample rate of the file.

        Raises:
            ValueError: ``decode_audio`` refuses the file.
        """
        waveform, sample_rate_hz = decode_audio(data, self.limits)
        return Waveform(waveform.mean(0), sample_rate_hz)

    def describe(self, data: bytes) -> Mapping[str, float | Moments]:
        """Return length, sample rate, channels and the moments of the waveform; see ``describe_audio``."""
        return describe_audio(data, self.limits)

    def example(self) -> Item:
        """Return silence of the length of a crop, or of a second."""
        return Item(torch.zeros(round((self.seconds or 1.0) * self.sample_rate_hz)), ragged=True)

    def __call__(self, decoded: Waveform, generator: torch.Generator, train: bool) -> Item:
        """Return ``(samples,)`` float32, at most ``seconds`` of it."""
        return Item(self.crop(decoded, generator, train).samples, ragged=True)

    def crop(self, decoded: Waveform, generator: torch.Generator, train: bool) -> Crop:
        """Return the part that is the item, and where it begins; arguments as of ``__call__``."""
        samples, speed = decoded.samples, self._speed(generator) if train else 1.0
        rate = round(decoded.sample_rate_hz * speed)  # of a file that plays so fast
        if self.seconds is None:
            return Crop(_resampled(samples, rate, self.sample_rate_hz), 0.0, speed)
        spare = max(0, len(samples) - round(self.seconds * rate))
        first = int(torch.randint(spare + 1, (), generator=generator)) if train else spare // 2
        part = samples[first : first + max(1, round(self.seconds * rate))]
        resampled = _resampled(part, rate, self.sample_rate_hz)[: round(self.seconds * self.sample_rate_hz)].contiguous()
        return Crop(resampled, first / decoded.sample_rate_hz, speed)

    def _speed(self, generator: torch.Generator) -> float:
        count = len(self.speeds)
        return self.speeds[0 if count == 1 else int(torch.randint(count, (), generator=generator))]


def _resampled(samples: Float32[Tensor, " n"], rate: int, wanted: int) -> Float32[Tensor, " m"]:
    ratio = _ratio(rate, wanted)
    return samples.contiguous() if ratio == 1 else _resampler(ratio)(samples)


def _ratio(rate: int, wanted: int) -> Fraction:
    exact = Fraction(wanted, rate)
    return exact.limit_denominator(math.isqrt(int(FILTER_VALUES / exact)))


@functools.lru_cache(maxsize=64)
def _resampler(ratio: Fraction) -> Resample:
    """Return a resampler with its filter, which costs more to make than to use."""
    return Resample(ratio.denominator, ratio.numerator)
