"""Sounds on the device: augmentation of waveforms, and their spectrograms, for all items of a batch at once.

Letters in shapes: b items, n samples of all items, f frames of all items, m mel bins.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from multimodal.batch import Items
from multimodal.masking.noise import uniform
from multimodal.protocols import Preparation
from multimodal.tokenizers.audio.features import LogMel
from multimodal.tokenizers.audio.rows import packed, places

SHIFT, GAIN = 101, 102
"""Streams of the noise of an item, apart from those of maskings."""


class Spectrograms(Preparation):
    """Log-mel spectrograms of waveforms (``AudioTransform``), made where the batch lies.

    Args:
        features: makes them; None: ``LogMel()``, with the settings of BEATs. Its sample rate must be that of the transform.
        frames: of an item: shorter ones are filled up with zeros, of longer ones the first are taken. AST, AudioMAE, EAT: 1024. None: as
            many as each has.
        min_frames: shorter sounds are filled up with silence at their end; a patch of 16 x 16 needs 16. (``min_seconds`` of the transform
            refuses short files instead.)

    Raises:
        ValueError: ``frames`` below ``min_frames``, or ``min_frames`` below 1.
    """

    def __init__(self, features: LogMel | None = None, frames: int | None = None, min_frames: int = 16) -> None:
        super().__init__()
        if min_frames < 1:
            raise ValueError(f"min_frames must be at least 1, got {min_frames}.")
        if frames is not None and frames < min_frames:
            raise ValueError(f"frames must be at least min_frames {min_frames}, or null for as many as a sound has, got {frames}.")
        self.features, self.frames, self.min_frames = features or LogMel(), frames, min_frames

    def extra_repr(self) -> str:
        """Name what decides how many frames there are."""
        return f"sample_rate_hz={self.features.sample_rate_hz}, frames={self.frames}, min_frames={self.min_frames}"

    def forward(self, items: Items, train: bool) -> Items:
        """Return the items with spectrograms ``(f, m)`` end to end; with ``frames`` ``(b, frames, m)``."""
        samples, lengths = _filled(*packed(items), self.features.num_samples(self.min_frames))
        spectrograms, counts = self.features(samples, lengths), self.features.frame_counts(lengths)
        if self.frames is None:
            return replace(items, values=spectrograms, lengths=counts)
        cut = [own[: self.frames] for own in spectrograms.split(counts.tolist())]
        filled = pad_sequence([*cut, spectrograms.new_zeros(self.frames, self.features.num_bins)], batch_first=True)[:-1]
        return replace(items, values=filled, lengths=None)


class CircularShift(Preparation):
    """Turn each waveform by a number of samples that is drawn anew: what leaves at its end comes in at its start (AudioMAE)."""

    def forward(self, items: Items, train: bool) -> Items:
        """Return the turned waveforms, laid out as they were."""
        if not train:
            return items
        samples, lengths = packed(items)
        item, place = places(lengths)
        shift = (uniform(items.seed, torch.zeros_like(items.seed), SHIFT) * lengths).long()
        source = (lengths.cumsum(0) - lengths)[item] + (place - shift[item]) % lengths[item]
        return replace(items, values=samples[source].view(items.values.shape))


class RandomGain(Preparation):
    """Make each waveform louder or quieter, by a factor from 0.5 to 1.5 that is mostly near 1 (AudioMAE: Beta(10, 10) + 0.5).

    Args:
        concentration: both parameters of the beta distribution, a whole number: larger ones keep the factor nearer to 1.

    Raises:
        ValueError: ``concentration`` below 1.
    """

    def __init__(self, concentration: int = 10) -> None:
        super().__init__()
        if concentration < 1:
            raise ValueError(f"concentration must be at least 1, got {concentration}.")
        self.concentration = concentration

    def forward(self, items: Items, train: bool) -> Items:
        """Return the waveforms, each times its factor."""
        if not train:
            return items
        gain = self.gains(items.seed)
        if items.lengths is None:
            return replace(items, values=items.values * gain[:, None])
        return replace(items, values=items.values * gain[places(items.lengths)[0]])

    def gains(self, seed: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return the factor of each item: a beta variable with whole parameters a, a is the median of 2a - 1 uniform ones."""
        count = torch.arange(2 * self.concentration - 1, device=seed.device)
        return uniform(seed[:, None].expand(-1, len(count)), count.expand(len(seed), -1), GAIN).median(1).values + 0.5


def _filled(samples: Tensor, lengths: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Return waveforms that lie end to end, and their lengths, with silence after those of fewer than ``least`` samples."""
    if not len(lengths) or int(lengths.min()) >= least:
        return samples, lengths
    (item, place), grown = places(lengths), lengths.clamp(min=least)
    filled = samples.new_zeros(int(grown.sum()))
    filled[(grown.cumsum(0) - grown)[item] + place] = samples
    return filled, grown
