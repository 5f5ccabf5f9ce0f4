"""Sounds on the device: augmentation of waveforms, their spectrograms, and augmentation of these, for all items of a batch at once.

Letters in shapes: b items, n samples of all items, f frames of all items, m mel bins, k masks of an item.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from multimodal.batch import Items
from multimodal.masking.noise import uniform
from multimodal.protocols import Preparation
from multimodal.tokenizers.audio.features import LogMel

SHIFT, GAIN, TIME, FREQUENCY, FILTER = 101, 102, 103, 104, 105
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
        samples, lengths = _filled(*_packed(items), self.features.num_samples(self.min_frames))
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
        samples, lengths = _packed(items)
        item, place = _places(lengths)
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
        return replace(items, values=items.values * gain[_places(items.lengths)[0]])

    def gains(self, seed: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return the factor of each item: a beta variable with whole parameters a, a is the median of 2a - 1 uniform ones."""
        count = torch.arange(2 * self.concentration - 1, device=seed.device)
        return uniform(seed[:, None].expand(-1, len(count)), count.expand(len(seed), -1), GAIN).median(1).values + 0.5


class SpecAugment(Preparation):
    """Hide bands of time and of frequency in spectrograms, by the item's mean (SpecAugment, https://arxiv.org/abs/1904.08779).

    Args:
        time_masks: bands of time in each item.
        time_width: frames of a band, at most; the width is drawn from 0 on. EAT, fine-tuning: 200 of 1024.
        time_share: of the frames of an item that a band may take, at most, in (0, 1].
        frequency_masks: bands of frequency in each item.
        frequency_width: mel bins of a band, at most. EAT, fine-tuning: 25 of 128.

    Raises:
        ValueError: a negative number, or a share outside its range.
    """

    def __init__(
        self,
        time_masks: int = 1,
        time_width: int = 192,
        time_share: float = 1.0,
        frequency_masks: int = 1,
        frequency_width: int = 48,
    ) -> None:
        super().__init__()
        numbers = {
            "time_masks": time_masks,
            "time_width": time_width,
            "frequency_masks": frequency_masks,
            "frequency_width": frequency_width,
        }
        if wrong := [f"{name} {value}" for name, value in numbers.items() if value < 0]:
            raise ValueError(f"masks and widths must be at least 0, got {', '.join(wrong)}.")
        if not 0 < time_share <= 1:
            raise ValueError(f"time_share must be in (0, 1], got {time_share}.")
        self.time_masks, self.time_width, self.time_share = time_masks, time_width, time_share
        self.frequency_masks, self.frequency_width = frequency_masks, frequency_width

    def forward(self, items: Items, train: bool) -> Items:
        """Return the spectrograms with bands hidden, laid out as they were."""
        if not train:
            return items
        values, lengths = _packed(items)
        item, place = _places(lengths)
        widest = (lengths * self.time_share).long().clamp(max=self.time_width)
        hidden_frames = _hidden(items.seed, lengths, widest, self.time_masks, TIME)[item, place]  # f
        bins = torch.full_like(lengths, values.shape[1])
        hidden_bins = _hidden(items.seed, bins, bins.clamp(max=self.frequency_width), self.frequency_masks, FREQUENCY)[item]  # f m
        mean = values.new_zeros(len(lengths)).index_add_(0, item, values.mean(1)) / lengths
        shown = torch.where(hidden_frames[:, None] | hidden_bins, mean[item, None], values)
        return replace(items, values=shown.view(items.values.shape))


class FilterAugment(Preparation):
    """Colour log-mel spectrograms, as other rooms and microphones would: each item gets a random gain of each frequency.

    The linear type of FilterAugment (https://arxiv.org/abs/2110.03282): bands of random widths lie side by side, the gain at each border is
    drawn, and in between it runs straight. Departures: the number of bands is not drawn, and bands may be of any width.

    Args:
        bands: that the frequencies are divided into.
        decibels: that a gain is above or below 0, at most; values are taken as natural logarithms of energies, as those of ``LogMel`` are.

    Raises:
        ValueError: no bands, or ``decibels`` not above 0.
    """

    def __init__(self, bands: int = 4, decibels: float = 6.0) -> None:
        super().__init__()
        if bands < 1 or not decibels > 0:
            raise ValueError(f"bands must be at least 1 and decibels above 0, got {bands} and {decibels}.")
        self.bands, self.decibels = bands, decibels

    def forward(self, items: Items, train: bool) -> Items:
        """Return the coloured spectrograms, laid out as they were."""
        if not train:
            return items
        values, lengths = _packed(items)
        gains = self.gains(items.seed, values.shape[1]).to(values.dtype)
        return replace(items, values=(values + gains[_places(lengths)[0]]).view(items.values.shape))

    def gains(self, seed: Int[Tensor, " b"], num_bins: int) -> Float[Tensor, "b m"]:
        """Return what is added to the bins of each item."""
        number = torch.arange(2 * self.bands, device=seed.device)
        drawn = uniform(seed[:, None].expand(-1, len(number)), number.expand(len(seed), -1), FILTER)
        inner, levels = drawn.split([self.bands - 1, self.bands + 1], 1)
        ends = inner.new_zeros(len(seed), 1)
        borders = torch.cat([ends, inner.sort(1).values, ends + 1], 1)  # b bands + 1
        place = torch.linspace(0, 1, num_bins, device=seed.device).expand(len(seed), -1).contiguous()
        above = torch.searchsorted(borders, place, right=True).clamp(1, self.bands)
        start, end = borders.gather(1, above - 1), borders.gather(1, above)
        share = (place - start) / (end - start).clamp(min=torch.finfo(torch.float32).tiny)
        level = torch.lerp(levels.gather(1, above - 1), levels.gather(1, above), share)
        return (2 * level - 1) * self.decibels * math.log(10) / 10


def _packed(items: Items) -> tuple[Tensor, Tensor]:
    """Return the values of all items end to end, and the length of each."""
    if items.lengths is not None:
        return items.values, items.lengths
    count, length = items.values.shape[:2]
    return items.values.flatten(0, 1), torch.full((count,), length, device=items.values.device)


def _filled(samples: Tensor, lengths: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Return waveforms that lie end to end, and their lengths, with silence after those of fewer than ``least`` samples."""
    if not len(lengths) or int(lengths.min()) >= least:
        return samples, lengths
    (item, place), grown = _places(lengths), lengths.clamp(min=least)
    filled = samples.new_zeros(int(grown.sum()))
    filled[(grown.cumsum(0) - grown)[item] + place] = samples
    return filled, grown


def _places(lengths: Int[Tensor, " b"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Return the item of each place of items that lie end to end, and its index in the item."""
    item = torch.repeat_interleave(lengths)
    return item, torch.arange(len(item), device=lengths.device) - (lengths.cumsum(0) - lengths)[item]


def _hidden(
    seed: Int[Tensor, " b"], lengths: Int[Tensor, " b"], widest: Int[Tensor, " b"], masks: int, stream: int
) -> Bool[Tensor, "b longest"]:
    """Return where bands hide an axis of each item; widths are drawn from 0 to the widest, then where they begin."""
    number, place = torch.arange(masks, device=seed.device), torch.arange(int(lengths.max()), device=seed.device)
    draw = [uniform(seed[:, None].expand(-1, masks), (2 * number + part).expand(len(seed), -1), stream) for part in (0, 1)]
    width = (draw[0] * (widest[:, None] + 1)).long()  # b k
    start = (draw[1] * (lengths[:, None] - width + 1)).long()
    inside = (place >= start[..., None]) & (place < (start + width)[..., None])  # b k longest
    return inside.any(1)
