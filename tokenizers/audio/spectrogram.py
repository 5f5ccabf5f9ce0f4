"""Sound files -> log-mel spectrograms, made in the data workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch.nn import functional as F

from multimodal.batch import Item
from multimodal.protocols import Moments, Transform
from multimodal.tokenizers.audio.features import LogMel
from multimodal.tokenizers.audio.transform import AudioTransform, Waveform


class SpectrogramTransform(Transform):
    """The log-mel spectrogram of a crop of a sound. In training the crop is drawn at random; in evaluation it is the central one.

    Args:
        sound: reads the file, crops and resamples it; None: ``AudioTransform()``.
        features: makes the spectrogram, at the sample rate of ``sound``; None: ``LogMel()``, with the settings of BEATs.
        frames: of an item: shorter sounds are filled up with zeros, of longer ones the first are taken. AST, AudioMAE, EAT: 1024,
            which is 10.255 s. None: as many as the crop has (BEATs).
        min_frames: sounds with fewer are refused; a patch of 16 x 16 needs 16.
        pad: fill such sounds up with silence at their end instead, to ``min_frames``.

    Raises:
        ValueError: ``frames`` below ``min_frames``, ``min_frames`` below 1, or two sample rates.
    """

    extensions: ClassVar[tuple[str, ...]] = AudioTransform.extensions

    def __init__(
        self,
        sound: AudioTransform | None = None,
        features: LogMel | None = None,
        frames: int | None = None,
        min_frames: int = 16,
        pad: bool = False,
    ) -> None:
        if min_frames < 1:
            raise ValueError(f"min_frames must be at least 1, got {min_frames}.")
        if frames is not None and frames < min_frames:
            raise ValueError(f"frames must be at least min_frames {min_frames}, or null for as many as a sound has, got {frames}.")
        self.sound, self.features = sound or AudioTransform(), features or LogMel()
        if self.sound.sample_rate_hz != self.features.sample_rate_hz:
            raise ValueError(f"sound has {self.sound.sample_rate_hz} Hz, features {self.features.sample_rate_hz} Hz: set both alike.")
        self.frames, self.min_frames, self.pad = frames, min_frames, pad

    def decode(self, data: bytes) -> Waveform:
        """Return the sound as one channel, at the sample rate of the file.

        Raises:
            ValueError: ``decode_audio`` refuses the file.
        """
        return self.sound.decode(data)

    def describe(self, data: bytes) -> Mapping[str, float | Moments]:
        """Return length, sample rate, channels and the moments of the waveform; see ``describe_audio``."""
        return self.sound.describe(data)

    def example(self) -> Item:
        """Return the spectrogram of silence."""
        silence = self.sound.example().values
        return self.of_samples(F.pad(silence, (0, max(0, self.features.num_samples(self.min_frames) - len(silence)))))

    def __call__(self, decoded: Waveform, generator: torch.Generator, train: bool) -> Item:
        """Return ``(frames, bins)`` float32.

        Raises:
            ValueError: the crop has fewer than ``min_frames``, and is not to be filled up.
        """
        return self.of_samples(self.sound(decoded, generator, train).values)

    def of_samples(self, samples: torch.Tensor) -> Item:
        """Return the item of a crop, ``(samples,)`` float32 at the sample rate of ``sound``.

        Raises:
            ValueError: as ``__call__``.
        """
        least = self.features.num_samples(self.min_frames)
        if self.pad:
            samples = F.pad(samples, (0, max(0, least - len(samples))))
        count = self.features.num_frames(len(samples))
        if count < self.min_frames:
            raise ValueError(f"a sound of {len(samples)} samples makes {count} frames; min_frames {self.min_frames} need {least} samples.")
        spectrogram = self.features(samples)
        if self.frames is None:
            return Item(spectrogram, ragged=True)
        return Item(F.pad(spectrogram[: self.frames], (0, 0, 0, max(0, self.frames - count))))
