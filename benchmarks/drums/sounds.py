"""Drum sounds in memory: spectrograms, classes and kits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks.drums.data import CLASSES, drums
from benchmarks.sound_classification.sounds import Sounds, transform
from multimodal.tokenizers.audio.transform import Waveform

SECONDS = 1.0
"""Of a recording that are used, from its start: a cymbal rings on."""


def load(unpacked: Path, shared: bool = False) -> Sounds:
    """Read and transform all recordings; their groups are kits.

    Args:
        unpacked: folder of the packages (``benchmarks.drums.data``).
        shared: as of ``benchmarks.drums.data.drums``.
    """
    known, make, made = drums(unpacked, shared), transform(), []
    for drum in known:
        samples, rate = make.decode(drum.path.read_bytes())
        made.append(make(Waveform(samples[: int(SECONDS * rate)], rate), torch.Generator(), train=False).values)
    labels, kits = np.array([CLASSES.index(drum.instrument) for drum in known]), np.array([drum.kit for drum in known])
    return Sounds(made, labels, kits, CLASSES)


def spectrum_features(sounds: Sounds) -> np.ndarray:
    """Return what is compared with: mean, spread and maximum of each mel bin, the mean of the attack, and the length."""
    rows = [torch.cat([x.mean(0), x.std(0), x.amax(0), x[:8].mean(0), torch.tensor([len(x) / 100])]).numpy() for x in sounds.spectrograms]
    return np.stack(rows)
