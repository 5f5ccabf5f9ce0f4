"""Drum sounds in memory: spectrograms, classes and kits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.drums.data import CLASSES, drums
from benchmarks.sound_classification.sounds import Sounds, transform
from multimodal.tokenizers.audio.transform import Waveform

SECONDS = 1.0
"""Of a recording that are used, from its start: a cymbal rings on."""
SPEEDS = (0.8, 0.9, 1.1, 1.25)
"""Of the views for training, beside that of the recording: a larger drum is a slower one."""


def load(unpacked: Path, speeds: Sequence[float] = ()) -> Sounds:
    """Read and transform all recordings; their groups are kits.

    Args:
        unpacked: folder of the packages (``benchmarks.drums.data``).
        speeds: at which a recording is transformed besides, for views of training; none: ``others`` stays empty.
    """
    known, make, others = drums(unpacked), transform(), [transform(speed) for speed in speeds]
    made, views = [], []
    for drum in known:
        samples, rate = make.decode(drum.path.read_bytes())
        waveform = Waveform(samples[: int(SECONDS * rate)], rate)
        made.append(make(waveform, torch.Generator(), train=False).values)
        views.append([other(waveform, torch.Generator(), train=True).values for other in others])
    labels, kits = np.array([CLASSES.index(drum.instrument) for drum in known]), np.array([drum.kit for drum in known])
    return Sounds(made, labels, kits, CLASSES, views if speeds else ())


def spectrum_features(sounds: Sounds) -> np.ndarray:
    """Return what is compared with: mean, spread and maximum of each mel bin, the mean of the attack, and the length."""
    rows = [torch.cat([x.mean(0), x.std(0), x.amax(0), x[:8].mean(0), torch.tensor([len(x) / 100])]).numpy() for x in sounds.spectrograms]
    return np.stack(rows)
