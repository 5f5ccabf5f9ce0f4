"""Sound files and files of segments -> spectrograms with the class of each frame.

Letters in shapes: f frames, m mel bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Int16
from torch import Tensor

from multimodal.batch import Item
from multimodal.protocols import LabelledTransform, Moments
from multimodal.tokenizers.audio.features import LogMel
from multimodal.tokenizers.audio.segments import SegmentReader, Segments
from multimodal.tokenizers.audio.spectrogram import SpectrogramTransform
from multimodal.tokenizers.audio.transform import Crop, Waveform

NO_CLASS = -1
MAX_CLASSES = 2**15
"""What an int16 holds."""


class FrameLabelTransform(LabelledTransform):
    """The spectrogram of a crop of a sound, and the class of each of its frames: that of the segment in which the middle of the frame lies.

    Crop and labels belong to each other: times count from the start of the file, wherever the crop begins. Frames that were added to
    fill an item up have no class, and neither has a sound without segments.

    Args:
        segments: how segments are read, and the names of the classes.
        spectrogram: reads and crops the sound; None: ``SpectrogramTransform()``, with the settings of BEATs.
        background: the class of frames in no segment, one of the classes; None: they have none, and count for nothing.

    Raises:
        ValueError: ``background`` is none of the classes, or there are more than 32768 of them.
    """

    extensions: ClassVar[tuple[str, ...]] = SpectrogramTransform.extensions

    def __init__(self, segments: SegmentReader, spectrogram: SpectrogramTransform | None = None, background: str | None = None) -> None:
        if background is not None and background not in segments.classes:
            raise ValueError(f"background must be one of the classes {', '.join(segments.classes)}, or null; got {background!r}.")
        if len(segments.classes) > MAX_CLASSES:
            raise ValueError(f"there may be at most {MAX_CLASSES} classes, got {len(segments.classes)}.")
        self.segments, self.spectrogram, self.background = segments, spectrogram or SpectrogramTransform(), background

    @property
    def label_extensions(self) -> tuple[str, ...]:  # type: ignore[override]
        """The fields of the segments."""
        return self.segments.fields

    @property
    def features(self) -> LogMel:
        """What makes the spectrograms, whose statistics an embedding must have."""
        return self.spectrogram.features

    def decode(self, data: bytes) -> Waveform:
        """Return the sound as one channel, at the sample rate of the file.

        Raises:
            ValueError: ``decode_audio`` refuses the file.
        """
        return self.spectrogram.decode(data)

    def decode_labels(self, data: bytes) -> Segments:
        """Return the segments.

        Raises:
            ValueError: see ``SegmentReader``.
        """
        return self.segments(data)

    def describe(self, data: bytes) -> Mapping[str, float | Moments]:
        """Return length, sample rate, channels and the moments of the waveform; see ``describe_audio``."""
        return self.spectrogram.describe(data)

    def example(self) -> Item:
        """Return the spectrogram of silence, all frames of class 0."""
        item = self.spectrogram.example()
        return replace(item, labels=torch.zeros(len(item.values), dtype=torch.int16))

    def labelled(self, decoded: Waveform, labels: Segments | None, generator: torch.Generator, train: bool) -> Item:
        """Return the spectrogram ``(f, m)`` and the class of each frame.

        Raises:
            ValueError: a segment starts after the end of the sound, or the crop is too short; see ``SpectrogramTransform``.
        """
        duration_s = len(decoded.samples) / decoded.sample_rate_hz
        if labels is not None and len(labels.starts) and float(labels.starts[-1]) >= duration_s:
            raise ValueError(f"a segment starts at {float(labels.starts[-1]):g} s, after the end of the sound at {duration_s:g} s.")
        crop = self.spectrogram.sound.crop(decoded, generator, train)
        item = self.spectrogram.of_samples(crop.samples)
        return replace(item, labels=self._classes(crop, labels, len(item.values)))

    def _classes(self, crop: Crop, segments: Segments | None, frames: int) -> Int16[Tensor, " f"]:
        found = torch.full((frames,), NO_CLASS, dtype=torch.int16)
        if segments is None:
            return found
        rate, features = self.features.sample_rate_hz, self.features
        middle = (torch.arange(frames, dtype=torch.float64) * features.hop + features.frame / 2) / rate
        if self.background is not None:
            found.fill_(self.segments.classes.index(self.background))
        if len(segments.starts):
            time = crop.start_s + middle * crop.speed
            number = (torch.searchsorted(segments.starts, time, right=True) - 1).clamp(min=0)
            inside = (segments.starts[number] <= time) & (time < segments.ends[number])
            found = torch.where(inside, segments.classes[number].to(torch.int16), found)
        return found.masked_fill(middle >= len(crop.samples) / rate, NO_CLASS)
