"""Log-mel spectrograms, side by side with torchaudio's of Kaldi, and how far both are from float64.

``python -m benchmarks.log_mel [--rounds 5] [--clips 16] [--seconds 10]``
"""

from __future__ import annotations

import argparse

import torch
from rich.console import Console
from torch import Tensor
from torchaudio.compliance.kaldi import fbank

from benchmarks.side_by_side import compare, machine
from multimodal.tokenizers.audio import LogMel
from multimodal.tokenizers.audio.features import FULL_SCALE

RATE_HZ = 16_000


def main() -> int:
    """Print the table, and the largest and the mean difference from float64."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.log_mel", description="Log-mel spectrograms, side by side.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console, features = Console(width=120), LogMel()
    clips = 0.1 * torch.randn(arguments.clips, RATE_HZ * arguments.seconds, generator=torch.Generator().manual_seed(0))
    lengths = torch.full((len(clips),), clips.shape[1])
    packed, seconds = clips.flatten(), arguments.clips * arguments.seconds
    candidates = {
        "multimodal, a batch": lambda: _work(features(packed, lengths), seconds),
        "multimodal, one clip at a time": lambda: _work(torch.cat([features(clip) for clip in clips]), seconds),
        "torchaudio kaldi.fbank, one clip at a time": lambda: _work(torch.cat([kaldi(clip) for clip in clips]), seconds),
    }
    title = f"{arguments.clips} clips of {arguments.seconds} s, 128 bins"
    console.print(compare(candidates, "seconds of sound", arguments.rounds, title=title))
    exact = torch.cat([kaldi(clip.double()) for clip in clips])
    for name, made in (("multimodal", features(packed, lengths)), ("torchaudio", torch.cat([kaldi(clip) for clip in clips]))):
        far = (made - exact).abs()
        console.print(f"{name}: at most {far.max():.1e} from float64, {far.mean():.1e} on average")
    console.print(machine(("torch", "torchaudio")))
    return 0


def kaldi(clip: Tensor) -> Tensor:
    """Return torchaudio's spectrogram, with the settings of BEATs."""
    return fbank((clip * FULL_SCALE)[None], num_mel_bins=128, sample_frequency=RATE_HZ, dither=0.0)


def _work(made: Tensor, seconds: int) -> int:
    assert made.shape[1] == 128
    return seconds


if __name__ == "__main__":
    raise SystemExit(main())
