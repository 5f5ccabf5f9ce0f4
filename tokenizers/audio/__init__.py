"""Sounds: files to waveforms."""

from multimodal.tokenizers.audio.decode import AudioLimits, decode_audio
from multimodal.tokenizers.audio.transform import AudioTransform

__all__ = ["AudioLimits", "AudioTransform", "decode_audio"]
