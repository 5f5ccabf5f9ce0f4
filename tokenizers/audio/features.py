"""Waveforms -> log-mel spectrograms, as Kaldi computes them.

Letters in shapes: n samples, f frames, w samples of a frame, k frequencies, m mel bins.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

FRAME_MS, HOP_MS = 25, 10
LOWEST_HZ = 20.0
PRE_EMPHASIS = 0.97
LEAST_ENERGY = torch.finfo(torch.float32).eps
FULL_SCALE = 2.0**15
"""Largest sample of 16 bits: what BEATs multiplies waveforms of -1 to 1 by."""


class LogMel:
    """Logarithms of the energies of overlapping triangular bands, equally spaced in mel (Kaldi's ``compute-fbank-feats`` without dither).

    A frame has 25 ms, and one begins every 10 ms; only whole frames count. The mean of each frame is taken from it, so that a constant
    in the waveform (which AST, AudioMAE and EAT subtract beforehand) does not matter. ``gain`` does: 2^15 adds 20.8 to every value.

    Args:
        sample_rate_hz: of the waveforms.
        num_bins: bands, at least 4.
        window: of a frame. BEATs: "povey"; AST, AudioMAE, EAT: "hanning".
        gain: multiplies waveforms, whose full scale is 1. BEATs: 32768; AST, AudioMAE, EAT: 1.

    Raises:
        ValueError: a sample rate below 1000 Hz, too few bands, an unknown window or a gain that is not positive.
    """

    def __init__(
        self, sample_rate_hz: int = 16_000, num_bins: int = 128, window: Literal["povey", "hanning"] = "povey", gain: float = FULL_SCALE
    ) -> None:
        if sample_rate_hz < 1000:
            raise ValueError(f"sample_rate_hz must be at least 1000, got {sample_rate_hz}.")
        if num_bins < 4:
            raise ValueError(f"num_bins must be at least 4, got {num_bins}.")
        if window not in ("povey", "hanning"):
            raise ValueError(f"window must be 'povey' or 'hanning', got {window!r}.")
        if gain <= 0:
            raise ValueError(f"gain must be positive, got {gain}.")
        self.sample_rate_hz, self.num_bins, self.gain = sample_rate_hz, num_bins, gain
        self.frame, self.hop = sample_rate_hz * FRAME_MS // 1000, sample_rate_hz * HOP_MS // 1000
        hann = torch.hann_window(self.frame, periodic=False)
        self.window = hann if window == "hanning" else hann.pow(0.85)
        self.transform_size = 2 ** math.ceil(math.log2(self.frame))
        self.bands = mel_bands(num_bins, self.transform_size, sample_rate_hz)

    def num_frames(self, num_samples: int) -> int:
        """Return the number of whole frames; 0 where there is none."""
        return 0 if num_samples < self.frame else 1 + (num_samples - self.frame) // self.hop

    def num_samples(self, num_frames: int) -> int:
        """Return the fewest samples that make so many frames."""
        return 0 if num_frames < 1 else self.frame + (num_frames - 1) * self.hop

    def __call__(self, samples: Float[Tensor, " n"]) -> Float[Tensor, "f m"]:
        """Return the spectrogram of a waveform.

        Raises:
            ValueError: the waveform is shorter than a frame.
        """
        if len(samples) < self.frame:
            raise ValueError(f"a sound of {len(samples)} samples is shorter than a frame of {self.frame}.")
        frames = (samples * self.gain).unfold(0, self.frame, self.hop)  # f w
        frames = frames - frames.mean(1, keepdim=True)
        before = F.pad(frames[None], (1, 0), mode="replicate")[0, :, :-1]
        windowed = (frames - PRE_EMPHASIS * before) * self.window
        energies = torch.fft.rfft(windowed, self.transform_size).abs().square()  # f k
        return (energies @ self.bands.T).clamp(min=LEAST_ENERGY).log()


def mel_bands(num_bins: int, transform_size: int, sample_rate_hz: int) -> Float[Tensor, "m k"]:
    """Return the weight of each frequency of a Fourier transform in each band; the highest frequency is in none, as in Kaldi."""
    lowest, highest = mel(torch.tensor([LOWEST_HZ, sample_rate_hz / 2], dtype=torch.float64)).tolist()
    step = (highest - lowest) / (num_bins + 1)
    left = lowest + torch.arange(num_bins)[:, None] * step
    frequencies = mel(torch.arange(transform_size // 2) * (sample_rate_hz / transform_size))
    rising, falling = (frequencies - left) / step, (left + 2 * step - frequencies) / step
    return F.pad(torch.minimum(rising, falling).clamp(min=0), (0, 1))


def mel(frequency_hz: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Return frequencies in mel (HTK's and Kaldi's formula)."""
    return 1127.0 * torch.log(1.0 + frequency_hz / 700.0)
