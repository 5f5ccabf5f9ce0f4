"""Augmentation of spectrograms: it belongs to an item, and does what it says to the frames and bins."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.batch import Items
from multimodal.tokenizers.audio import FilterAugment, NoiseFloor, RandomLinearFader, RandomStretch, SpecAugment
from tests.tokenizers.audio.made import alone, pictures, split

STEPS = [FilterAugment(), NoiseFloor(probability=1.0), RandomLinearFader(), RandomStretch(), SpecAugment(2, 20, 0.5, 2, 30)]
DECIBEL = math.log(10) / 10


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_what_an_item_becomes_is_its_own_affair(step):
    items = pictures(16_000, 4000, 7001)
    together = step(items, train=True)
    assert together.values.isfinite().all() and len(together.values) == together.lengths.sum()
    assert together.values.shape != items.values.shape or not torch.equal(together.values, items.values)
    for number in range(3):
        torch.testing.assert_close(step(alone(items, number), train=True).values, split(together)[number])
    other = step(replace(items, seed=items.seed + 1), train=True)
    assert other.values.shape != together.values.shape or not torch.equal(other.values, together.values)
    assert step(items, train=False) is items


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_spectrograms_of_one_length_may_lie_in_rows_and_keep_it(step):
    items = pictures(4000, 4000)
    rows = replace(items, values=items.values.view(2, 23, 128), lengths=None)
    made = step(rows, train=True)
    assert made.values.shape == (2, 23, 128) and made.lengths is None
    if not isinstance(step, RandomStretch):
        torch.testing.assert_close(made.values.view(46, 128), step(items, train=True).values)


def test_bands_are_hidden_by_the_mean_and_no_wider_than_said():
    items = pictures(*[16_000] * 40)
    step = SpecAugment(time_masks=1, time_width=30, frequency_masks=1, frequency_width=12)
    widths: dict[str, set[int]] = {"frames": set(), "bins": set()}
    for before, after in zip(split(items), split(step(items, train=True)), strict=True):
        changed = before != after
        frames, bins = changed.all(1), changed.all(0)
        assert torch.equal(changed, frames[:, None] | bins)
        assert torch.allclose(after[changed], before.mean(), atol=1e-4)
        for axis, hidden in (("frames", frames), ("bins", bins)):
            places = hidden.nonzero()[:, 0]
            assert not len(places) or int(places[-1] - places[0]) + 1 == len(places)  # one band
            widths[axis].add(len(places))
    assert max(widths["frames"]) <= 30 and len(widths["frames"]) > 12
    assert max(widths["bins"]) <= 12 and len(widths["bins"]) > 6


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(2, 128), st.integers(0, 2**40))
def test_gains_of_frequencies_are_straight_between_few_borders_and_no_larger_than_said(bands, bins, seed):
    gains = FilterAugment(bands, decibels=6.0).gains(torch.tensor([seed]), bins)[0].double()
    assert gains.shape == (bins,) and gains.isfinite().all()
    assert gains.abs().max() <= 6.0 * 0.2302586 + 1e-6
    bends = gains.diff(n=2).abs() > 1e-4
    starts = bends.clone()
    starts[1:] &= ~bends[:-1]  # a border between two bins bends at both
    assert starts.sum() <= bands - 1


def test_gains_of_frequencies_are_drawn_evenly_and_are_the_same_all_along_an_item():
    gains = FilterAugment(bands=1, decibels=10.0).gains(torch.arange(20_000), 3)
    assert gains.mean().abs() < 0.02 and gains[:, 0].var().item() == pytest.approx(2.302585**2 / 3, rel=0.03)
    assert torch.corrcoef(gains[:, [0, 2]].T)[0, 1].abs() < 0.03
    torch.testing.assert_close(gains[:, 1], (gains[:, 0] + gains[:, 2]) / 2)
    items = pictures(16_000, 4000)
    for before, after in zip(split(items), split(FilterAugment()(items, train=True)), strict=True):
        torch.testing.assert_close(after - before, (after - before)[:1].expand_as(before), atol=1e-4, rtol=0)


def test_a_share_of_short_items_is_left():
    step = SpecAugment(1, 1000, 0.5, 0, 0)
    items = pictures(*[4000] * 50)
    hidden = [(before != after).all(1).sum() for before, after in zip(split(items), split(step(items, train=True)), strict=True)]
    assert max(hidden) <= 11 and min(hidden) == 0  # of 23 frames


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=3), st.floats(1, 2), st.floats(1, 1.5), st.integers(0, 2**40))
def test_a_stretched_spectrogram_is_that_of_interpolation(lengths, time, frequency, seed):
    values = torch.randn(sum(lengths), 24, generator=torch.Generator().manual_seed(0))
    items = Items(values, torch.arange(len(lengths)), torch.arange(len(lengths)) + seed, torch.tensor(lengths))
    step = RandomStretch(time, frequency, min_frames=1)
    longer, higher = (step.factors(items.seed, part, most).tolist() for part, most in ((0, time), (1, frequency)))
    made = step(items, train=True)
    assert made.lengths.tolist() == [max(1, round(length * factor)) for length, factor in zip(lengths, longer, strict=True)]
    for number, (before, after) in enumerate(zip(split(items), split(made), strict=True)):
        longer_one = stretched(before.numpy(), longer[number], len(after))
        expected = stretched(longer_one.T, higher[number], 24).T
        np.testing.assert_allclose(after.numpy(), expected, atol=1e-3)


def stretched(rows: np.ndarray, factor: float, count: int) -> np.ndarray:
    """Interpolate each column; centres of rows lie at 0.5, 1.5 and so on."""
    places = (np.arange(count) + 0.5) / factor - 0.5
    return np.stack([np.interp(places, np.arange(len(rows)), column) for column in rows.T], 1)


def test_factors_are_as_often_above_one_as_below_and_of_time_and_frequency_apart():
    seed = torch.arange(20_000)
    logs = torch.stack([RandomStretch.factors(seed, part, 1.35).log() for part in (0, 1)])
    assert logs.abs().max() <= math.log(1.35) + 1e-6
    assert logs.mean(1).abs().max() < 0.004 and torch.corrcoef(logs)[0, 1].abs() < 0.03
    assert logs.var(1).tolist() == pytest.approx([math.log(1.35) ** 2 / 3] * 2, rel=0.03)


def test_short_sounds_are_not_made_shorter_than_a_patch():
    made = RandomStretch(time=2.0)(pictures(*[2800] * 30), train=True)  # of 16 frames
    assert made.lengths.min() == 16 and made.lengths.max() > 24


def test_labels_of_places_are_not_left_behind():
    items = replace(pictures(4000), labels=torch.zeros(23, dtype=torch.int64))
    with pytest.raises(ValueError, match="RandomStretch moves frames away from the labels of their places"):
        RandomStretch()(items, train=True)
    assert RandomStretch()(items, train=False) is items


def test_a_fade_runs_straight_from_its_first_gain_to_its_last():
    items = pictures(*[16_000] * 60)
    gains = torch.stack(
        [after - before for before, after in zip(split(items), split(RandomLinearFader(6.0)(items, train=True)), strict=True)]
    )
    torch.testing.assert_close(gains, gains[:, :, :1].expand_as(gains), atol=1e-4, rtol=0)
    ends, steps = gains[:, [0, -1], 0], gains[:, :, 0].diff(dim=1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), atol=1e-4, rtol=0)
    assert ends.abs().max() <= 6 * DECIBEL + 1e-4 and ends.std(0).min() > 0.4 * 6 * DECIBEL and torch.corrcoef(ends.T)[0, 1].abs() < 0.4


def test_a_noise_floor_is_as_loud_as_said_and_leaves_what_is_louder():
    silent = Items(torch.zeros(400 * 20, 64), torch.arange(400), torch.arange(400), torch.full((400,), 20))
    energy = NoiseFloor(1.0, highest=0.0, lowest=0.0)(silent, train=True).values.exp() - 1  # of the noise alone, whose mean is 1
    assert energy.mean() == pytest.approx(1, rel=0.01) and energy.var() == pytest.approx(1, rel=0.03)
    half = replace(silent, values=silent.values + 40 * (torch.arange(64) < 32))
    made = NoiseFloor(0.3, highest=-10.0, lowest=-30.0)(half, train=True).values.view(400, 20, 64)
    changed = (made != half.values.view(400, 20, 64)).any(1)
    assert changed[:, 32:].any(1).float().mean() == pytest.approx(0.3, abs=0.07)
    assert not changed[:, :32].any()
    levels = made[changed[:, 32:].any(1)][:, :, 32:].exp().mean((1, 2)).log() / DECIBEL - 20 / DECIBEL  # against the mean, 20
    assert levels.min() > -31 and levels.max() < -9 and levels.std() > 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FilterAugment(bands=0), "bands must be at least 1 and decibels above 0, got 0 and 6.0"),
        (lambda: FilterAugment(decibels=-1.0), "bands must be at least 1 and decibels above 0, got 4 and -1.0"),
        (lambda: NoiseFloor(1.5), r"probability must be in \[0, 1\] and lowest at most highest, got 1.5, -35.0 and -5.0"),
        (lambda: NoiseFloor(lowest=3.0), "lowest at most highest, got 0.3, 3.0 and -5.0"),
        (lambda: RandomLinearFader(0.0), "decibels must be above 0, got 0.0"),
        (lambda: RandomStretch(time=0.5), "time and frequency must be at least 1, got 0.5 and 1.15"),
        (lambda: RandomStretch(min_frames=0), "min_frames must be at least 1, got 0"),
        (lambda: SpecAugment(time_width=-3), "masks and widths must be at least 0, got time_width -3"),
        (lambda: SpecAugment(time_share=0.0), r"time_share must be in \(0, 1\], got 0.0"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
