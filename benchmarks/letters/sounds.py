"""Spoken letters in memory, as a telephone would carry them.

The prompts are telephone sound of 8 kHz, cut to the word; the alphabets are not. So that methods are compared on voices and not on this,
all sounds are reduced to 8 kHz, cut to what is spoken, and made equally loud.

Letters in shapes: f frames, m mel bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.letters.data import LETTERS, Letter
from benchmarks.sound_classification.sounds import Sounds, transform
from multimodal.tokenizers.audio import AudioTransform
from multimodal.tokenizers.audio.transform import Waveform

RATE = 8000
"""Of the prompts, in Hz."""
VOICED = slice(10, 89)
"""Mel bins of 16 kHz sound that a telephone carries, some 250 to 3,400 Hz; below are hum and rumble."""
RANGE, ABOVE_NOISE, LEAST = 7.0, 2.3, 3.5
"""Natural logarithms of energy: speech is at most so far below the peak (30 dB), at least so far above the noise (10 dB); but
what is less than 15 dB below the peak is speech in any noise."""
GAP, MARGIN, SHORTEST, LONGEST = 25, 3, 16, 150
"""Frames of 10 ms: longest pause in a word, what stays before and after it, and the bounds of the result."""
LEVEL = 25.5
"""Of the loudest frame, as the prompts have it in the mean with the gain of BEATs."""


def load(known: Sequence[Letter]) -> Sounds:
    """Read and transform all recordings; their labels are letters, their groups are voices."""
    spectrograms = [spoken(_spectrogram(letter)) for letter in known]
    labels = np.array([LETTERS.index(letter.letter) for letter in known])
    return Sounds(spectrograms, labels, np.array([f"{letter.package} {letter.voice}" for letter in known]), LETTERS)


def _spectrogram(letter: Letter) -> Tensor:
    telephone = AudioTransform(sample_rate_hz=RATE, seconds=None)
    samples = telephone(telephone.decode(letter.path.read_bytes()), torch.Generator(), train=False).values
    return transform()(Waveform(samples, RATE), torch.Generator(), train=False).values


def spoken(spectrogram: Tensor) -> Tensor:
    """Return the frames ``(f, m)`` of the loudest word, made as loud as all words; pauses up to ``GAP`` are inside a word."""
    level = _level(spectrogram)
    peak, noise = float(level.max()), float(level.quantile(0.1))
    loud = torch.nonzero(level > min(peak - LEAST, max(peak - RANGE, noise + ABOVE_NOISE))).flatten().numpy()
    words = np.split(loud, np.flatnonzero(np.diff(loud) > GAP) + 1)
    word = max(words, key=lambda frames: float(level[frames].exp().sum()))
    first, last = max(0, int(word[0]) - MARGIN), int(word[-1]) + MARGIN
    first = max(0, min(first, len(spectrogram) - SHORTEST))
    return spectrogram[first : max(last + 1, first + SHORTEST)][:LONGEST] - peak + LEVEL


def _level(spectrogram: Tensor) -> Tensor:
    """Return the logarithm of the energy of each frame in the telephone's band, smoothed over three."""
    level = spectrogram[:, VOICED].logsumexp(1)
    return F.avg_pool1d(level[None, None], 3, 1, 1, count_include_pad=False)[0, 0]
