"""Spectrograms as other rooms, microphones and instruments would have them, made where the batch lies.

Letters in shapes: b items, f frames of all items, m mel bins, k masks of an item.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multimodal.batch import Items
from multimodal.masking.noise import uniform
from multimodal.protocols import Preparation
from multimodal.tokenizers.audio.rows import means, packed, places

TIME, FREQUENCY, FILTER, STRETCH, FADE, FLOOR, FLOOR_NOISE = 103, 104, 105, 106, 107, 108, 109
"""Streams of the noise of an item, apart from those of maskings."""
NEPERS = math.log(10) / 10
"""Of energy in a decibel: values are natural logarithms of energies, as those of ``LogMel`` are."""


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
        values, lengths = packed(items)
        item, place = places(lengths)
        widest = (lengths * self.time_share).long().clamp(max=self.time_width)
        hidden_frames = _hidden(items.seed, lengths, widest, self.time_masks, TIME)[item, place]  # f
        bins = torch.full_like(lengths, values.shape[1])
        hidden_bins = _hidden(items.seed, bins, bins.clamp(max=self.frequency_width), self.frequency_masks, FREQUENCY)[item]  # f m
        mean = means(values, lengths)
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
        values, lengths = packed(items)
        gains = self.gains(items.seed, values.shape[1]).to(values.dtype)
        return replace(items, values=(values + gains[places(lengths)[0]]).view(items.values.shape))

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
        return (2 * level - 1) * self.decibels * NEPERS


class RandomStretch(Preparation):
    """Play each log-mel spectrogram longer or shorter, and move it up or down in frequency, by factors that are drawn apart.

    As the random resize of BYOL-A (https://arxiv.org/abs/2103.06695), but from the first frame and the lowest bin on and without a crop, so
    that a sound keeps its attack; the logarithms of the factors are drawn evenly, and what is in between is interpolated.

    Args:
        time: so many times as long or as short a sound becomes, at most; where all sounds have one length, they keep it: longer ones are
            cut, and shorter ones repeat their last frame.
        frequency: so many times as high or as low in bins it becomes, at most; above the highest bin that it has, that is repeated.
        min_frames: sounds are not made shorter; a patch of 16 x 16 needs 16.

    Raises:
        ValueError: a factor below 1, or ``min_frames`` below 1; items whose places have labels, which would stand for other frames.
    """

    def __init__(self, time: float = 1.35, frequency: float = 1.15, min_frames: int = 16) -> None:
        super().__init__()
        if time < 1 or frequency < 1:
            raise ValueError(f"time and frequency must be at least 1, got {time} and {frequency}.")
        if min_frames < 1:
            raise ValueError(f"min_frames must be at least 1, got {min_frames}.")
        self.time, self.frequency, self.min_frames = time, frequency, min_frames

    def forward(self, items: Items, train: bool) -> Items:
        """Return the stretched spectrograms; ragged ones have other lengths."""
        if not train:
            return items
        if items.labels is not None:
            raise ValueError("RandomStretch moves frames away from the labels of their places: leave it out.")
        values, lengths = packed(items)
        longer, higher = (self.factors(items.seed, part, most) for part, most in ((0, self.time), (1, self.frequency)))
        stretched = (lengths * longer).round().long().clamp(min=self.min_frames) if items.lengths is not None else lengths
        item, place = places(stretched)
        starts = (lengths.cumsum(0) - lengths)[item, None]
        low, high, share = _between(place[:, None], longer[item, None], lengths[item, None])
        frames = torch.lerp(values[(starts + low)[:, 0]], values[(starts + high)[:, 0]], share.to(values.dtype))  # f m
        bins = torch.arange(values.shape[1], device=values.device)[None]
        low, high, share = (x[item] for x in _between(bins, higher[:, None], torch.full_like(lengths, values.shape[1])[:, None]))
        found = torch.lerp(frames.gather(1, low), frames.gather(1, high), share.to(values.dtype))
        if items.lengths is None:
            return replace(items, values=found.view(items.values.shape))
        return replace(items, values=found, lengths=stretched)

    @staticmethod
    def factors(seed: Int[Tensor, " b"], part: int, most: float) -> Float[Tensor, " b"]:
        """Return the factor of each item, from 1 / ``most`` to ``most``; ``part``: 0 of time, 1 of frequency."""
        return ((2 * uniform(seed, torch.full_like(seed, part), STRETCH) - 1) * math.log(most)).exp()


class RandomLinearFader(Preparation):
    """Make each log-mel spectrogram louder or quieter by an amount that runs straight from a first to a last (BYOL-A v2).

    https://arxiv.org/abs/2204.07402. Sounds then die away faster or slower, as they do in other rooms.

    Args:
        decibels: that the first and the last are above or below 0, at most.

    Raises:
        ValueError: ``decibels`` not above 0.
    """

    def __init__(self, decibels: float = 10.0) -> None:
        super().__init__()
        if not decibels > 0:
            raise ValueError(f"decibels must be above 0, got {decibels}.")
        self.decibels = decibels

    def forward(self, items: Items, train: bool) -> Items:
        """Return the faded spectrograms, laid out as they were."""
        if not train:
            return items
        values, lengths = packed(items)
        item, place = places(lengths)
        first, last = (2 * uniform(items.seed, torch.full_like(items.seed, end), FADE) - 1 for end in (0, 1))
        share = place / (lengths[item] - 1).clamp(min=1)
        gain = torch.lerp(first[item], last[item], share) * self.decibels * NEPERS
        return replace(items, values=(values + gain[:, None].to(values.dtype)).view(items.values.shape))


class NoiseFloor(Preparation):
    """Put noise under some log-mel spectrograms, which then sink into it as in other recordings, instead of into silence.

    The noise is as loud in every bin, and its energy there is that of white noise in a narrow band: exponentially distributed.

    Args:
        probability: that an item gets noise.
        highest: of the noise in decibels, against the item's mean value.
        lowest: the same; the level is drawn evenly.

    Raises:
        ValueError: a probability outside [0, 1], or ``lowest`` above ``highest``.
    """

    def __init__(self, probability: float = 0.3, highest: float = -5.0, lowest: float = -35.0) -> None:
        super().__init__()
        if not 0 <= probability <= 1 or lowest > highest:
            raise ValueError(f"probability must be in [0, 1] and lowest at most highest, got {probability}, {lowest} and {highest}.")
        self.probability, self.highest, self.lowest = probability, highest, lowest

    def forward(self, items: Items, train: bool) -> Items:
        """Return the spectrograms, some with noise, laid out as they were."""
        if not train:
            return items
        values, lengths = packed(items)
        item, place = places(lengths)
        chosen, level = (uniform(items.seed, torch.full_like(items.seed, part), FLOOR) for part in (0, 1))
        mean = means(values, lengths)
        level = mean + (self.lowest + level * (self.highest - self.lowest)) * NEPERS
        level = level.masked_fill(chosen >= self.probability, -torch.inf)
        bins = values.shape[1]
        counter = place[:, None] * bins + torch.arange(bins, device=values.device)
        energy = (-torch.log1p(-uniform(items.seed[item, None].expand(-1, bins), counter, FLOOR_NOISE))).clamp(min=1e-6)
        noise = (level[item, None] + energy.log()).to(values.dtype)
        return replace(items, values=torch.logaddexp(values, noise).view(items.values.shape))


def _between(place: Tensor, factor: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for places of a stretched axis, the places before and after in the axis as it was, and how far from the first."""
    source = torch.minimum((((place + 0.5) / factor) - 0.5).clamp(min=0), (length - 1).float())  # centres of frames and bins
    low = source.floor().long()
    return low, torch.minimum(low + 1, length - 1), source - low


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
