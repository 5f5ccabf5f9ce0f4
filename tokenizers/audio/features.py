"""Waveforms -> log-mel spectrograms, as Kaldi computes them.

Letters in shapes: b sounds, n samples, f frames, w samples of a frame, k frequencies, m mel bins.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

FRAME_MS, HOP_MS = 25, 10
LOWEST_HZ = 20.0
PRE_EMPHASIS = 0.97
LEAST_ENERGY = torch.finfo(torch.float32).eps
BLOCK = 512
"""Frames that are transformed at a time on a CPU: a megabyte, which stays in its cache."""
LOUDEST_MEAN = 5.0
"""Of a spectrogram with gain 1, at most: that of white noise at full scale is 3.7."""
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
        floor: lower values are raised to it; None: Kaldi's, -15.9. Digital silence has that value, far from any noise, so that a model can
            tell by it how a recording was cut. With gain 32768 the noise of rounding to 16 bits is from -5 (lowest bin) to 5 (highest).

    Raises:
        ValueError: a sample rate below 1000 Hz, too few bands, an unknown window or a gain that is not positive.
    """

    def __init__(
        self,
        sample_rate_hz: int = 16_000,
        num_bins: int = 128,
        window: Literal["povey", "hanning"] = "povey",
        gain: float = FULL_SCALE,
        floor: float | None = None,
    ) -> None:
        if sample_rate_hz < 1000:
            raise ValueError(f"sample_rate_hz must be at least 1000, got {sample_rate_hz}.")
        if num_bins < 4:
            raise ValueError(f"num_bins must be at least 4, got {num_bins}.")
        if window not in ("povey", "hanning"):
            raise ValueError(f"window must be 'povey' or 'hanning', got {window!r}.")
        if gain <= 0:
            raise ValueError(f"gain must be positive, got {gain}.")
        self.sample_rate_hz, self.num_bins, self.gain, self.floor = sample_rate_hz, num_bins, gain, floor
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

    def frame_counts(self, lengths: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        """Return the number of whole frames of sounds of so many samples."""
        return ((lengths - self.frame).div(self.hop, rounding_mode="floor") + 1).clamp(min=0)

    def __call__(self, samples: Float[Tensor, " n"], lengths: Int[Tensor, " b"] | None = None) -> Float[Tensor, "f m"]:
        """Return the spectrogram of a waveform, or those of several, end to end.

        Args:
            samples: of all sounds, end to end, on any device.
            lengths: samples of each; None: there is one.

        Raises:
            ValueError: a waveform is shorter than a frame.
        """
        lengths = torch.tensor([len(samples)], device=samples.device) if lengths is None else lengths
        if len(lengths) and int(lengths.min()) < self.frame:
            raise ValueError(f"a sound of {int(lengths.min())} samples is shorter than a frame of {self.frame}.")
        starts, x = self._starts(lengths), samples.float() * self.gain
        made = x.new_empty(len(starts), self.num_bins)
        if not len(starts):
            return made
        window, bands = self.window.to(x.device), self.bands.T.contiguous().to(x.device)
        for block, out in zip(starts.split(self._block(x)), made.split(self._block(x)), strict=True):
            torch.matmul(self._energies(x, block, window), bands, out=out)
        made = made.clamp_(min=LEAST_ENERGY).log_()
        return made if self.floor is None else made.clamp_(min=self.floor)

    def _starts(self, lengths: Int[Tensor, " b"]) -> Int[Tensor, " f"]:
        """Return the first sample of each frame."""
        counts = self.frame_counts(lengths)
        item = torch.repeat_interleave(counts)
        number = torch.arange(len(item), device=lengths.device) - (counts.cumsum(0) - counts)[item]
        return (lengths.cumsum(0) - lengths)[item] + number * self.hop

    def _block(self, x: Tensor) -> int:
        return BLOCK if x.device.type == "cpu" else 2**20

    def _energies(self, x: Float[Tensor, " n"], starts: Int[Tensor, " f"], window: Float[Tensor, " w"]) -> Float[Tensor, "f k"]:
        """Return the energy of each frequency in the frames that begin at ``starts``."""
        frames = x.unfold(0, self.frame, 1)[starts]  # f w
        frames -= frames.mean(1, keepdim=True)
        emphasised = frames.new_zeros(len(frames), self.transform_size)
        before = frames * PRE_EMPHASIS
        torch.sub(frames[:, 1:], before[:, :-1], out=emphasised[:, 1 : self.frame])
        emphasised[:, 0] = frames[:, 0] - before[:, 0]  # the sample before the first is taken to be the same
        emphasised[:, : self.frame] *= window
        spectrum = torch.fft.rfft(emphasised)
        return (spectrum.real * spectrum.real).addcmul_(spectrum.imag, spectrum.imag)


def check_statistics(mean: float, source: object) -> None:
    """Look whether the mean of spectrograms can be that of the ``features`` of what makes them, if it has any.

    A gain adds twice its logarithm to every value, so statistics of spectrograms with gain 1 (AST, AudioMAE, EAT) and with 2^15 (BEATs) are
    20.8 apart: an input normalised by the wrong ones is lost. A mean must lie between that of silence and ``LOUDEST_MEAN``.

    Args:
        mean: what is subtracted.
        source: a transform or a preparation.

    Raises:
        ValueError: it cannot; or it is not 0 for spectrograms that were normalised before.
    """
    if getattr(source, "normalizes", False) and mean != 0:
        raise ValueError(f"mean {mean:g} is not of spectrograms that {type(source).__name__} normalises: set mean to 0 and std to 1.")
    features = getattr(source, "features", None)
    if not isinstance(features, LogMel):
        return
    raised = 2 * math.log(features.gain)
    if not math.log(LEAST_ENERGY) <= mean - raised <= LOUDEST_MEAN:
        raise ValueError(
            f"mean {mean:g} is not of spectrograms with gain {features.gain:g}, whose means lie in [{math.log(LEAST_ENERGY) + raised:.1f}, "
            f"{LOUDEST_MEAN + raised:.1f}]: take mean and std of the same front end (BEATs: gain 32768, AST and AudioMAE: gain 1)."
        )


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
