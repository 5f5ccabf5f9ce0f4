"""Sounds: files to waveforms and spectrograms, and how they enter the encoder."""

from multimodal.tokenizers.audio.augmentation import FilterAugment, NoiseFloor, RandomLinearFader, RandomStretch, SpecAugment
from multimodal.tokenizers.audio.beats import BeatsTokenizer
from multimodal.tokenizers.audio.decode import AudioLimits, decode_audio
from multimodal.tokenizers.audio.deltas import Deltas
from multimodal.tokenizers.audio.embed import NormedProjection, SpectrogramEmbed
from multimodal.tokenizers.audio.features import LogMel
from multimodal.tokenizers.audio.frame_labels import FrameLabelTransform, SegmentReader
from multimodal.tokenizers.audio.normalization import NormalizeBins
from multimodal.tokenizers.audio.preparation import CircularShift, RandomGain, Spectrograms
from multimodal.tokenizers.audio.random_projection import RandomProjectionTokenizer
from multimodal.tokenizers.audio.render import SpectrogramRenderer
from multimodal.tokenizers.audio.spectrogram import SpectrogramTransform
from multimodal.tokenizers.audio.transform import AudioTransform
from multimodal.tokenizers.audio.waveform import WaveformEmbed

__all__ = [
    "AudioLimits",
    "AudioTransform",
    "BeatsTokenizer",
    "CircularShift",
    "Deltas",
    "FilterAugment",
    "FrameLabelTransform",
    "LogMel",
    "NoiseFloor",
    "NormalizeBins",
    "NormedProjection",
    "RandomGain",
    "RandomLinearFader",
    "RandomProjectionTokenizer",
    "RandomStretch",
    "SegmentReader",
    "SpecAugment",
    "SpectrogramEmbed",
    "SpectrogramRenderer",
    "SpectrogramTransform",
    "Spectrograms",
    "WaveformEmbed",
    "decode_audio",
]
