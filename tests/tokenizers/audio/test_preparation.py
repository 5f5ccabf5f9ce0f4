"""Sounds on the device: spectrograms equal to those of the workers, augmentation that belongs to an item."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.batch import Item, Items, Sample, collate
from multimodal.tokenizers.audio import (
    AudioTransform,
    CircularShift,
    FilterAugment,
    RandomGain,
    SpecAugment,
    Spectrograms,
    SpectrogramTransform,
)
from multimodal.tokenizers.audio.transform import Waveform


def sounds(*lengths: int, first: int = 0) -> Items:
    samples = [torch.randn(length, generator=torch.Generator().manual_seed(length)) for length in lengths]
    return collate([Sample(str(i), {"sound": Item(x, ragged=True)}, seed=first + i) for i, x in enumerate(samples)]).items["sound"]


def pictures(*lengths: int) -> Items:
    return Spectrograms()(sounds(*lengths), train=True)


def split(items: Items) -> list[torch.Tensor]:
    return list(items.values) if items.lengths is None else list(items.values.split(items.lengths.tolist()))


def alone(items: Items, number: int) -> Items:
    return Items(split(items)[number], items.sample[:1], items.seed[number : number + 1], items.lengths[number : number + 1])


@pytest.mark.parametrize("frames", [None, 40])
def test_spectrograms_are_those_of_the_workers(frames):
    items = sounds(16_000, 4000, 7001)
    transform = SpectrogramTransform(AudioTransform(seconds=None), frames=frames)
    made = Spectrograms(frames=frames)(items, train=False)
    assert made.lengths is None if frames else made.lengths.tolist() == [98, 23, 42]
    for own, samples in zip(split(made), split(items), strict=True):
        expected = transform(Waveform(samples, 16_000), torch.Generator(), train=False).values
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-5)


def test_sounds_of_one_length_may_lie_in_rows():
    items = sounds(4000, 4000)
    rows = replace(items, values=items.values.view(2, 4000), lengths=None)
    for step in (Spectrograms(frames=20), CircularShift(), RandomGain()):
        torch.testing.assert_close(
            step(rows, train=True).values, step(items, train=True).values.view(2, *step(rows, True).values.shape[1:])
        )


STEPS = [CircularShift(), RandomGain(), FilterAugment(), SpecAugment(2, 20, 0.5, 2, 30)]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_what_an_item_becomes_is_its_own_affair(step):
    items = pictures(16_000, 4000, 7001) if isinstance(step, FilterAugment | SpecAugment) else sounds(16_000, 4000, 7001)
    together = step(items, train=True)
    assert not torch.equal(together.values, items.values) and torch.equal(together.lengths, items.lengths)
    for number in range(3):
        torch.testing.assert_close(step(alone(items, number), train=True).values, split(together)[number])
    other = step(replace(items, seed=items.seed + 1), train=True)
    assert not torch.equal(other.values, together.values)
    assert step(items, train=False) is items


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=4), st.integers(0, 2**40))
def test_a_turned_waveform_has_the_same_samples_in_the_same_circle(lengths, seed):
    items = sounds(*lengths, first=seed)
    for before, after in zip(split(items), split(CircularShift()(items, train=True)), strict=True):
        assert any(torch.equal(before.roll(-shift), after) for shift in range(len(before)))


def test_turns_are_of_any_length():
    item = Items(torch.arange(10.0).repeat(2000), torch.arange(2000), torch.arange(2000), torch.full((2000,), 10))
    first = CircularShift()(item, train=True).values.view(2000, 10)[:, 0].long()
    assert first.bincount(minlength=10).min() > 140 and first.bincount(minlength=10).max() < 260


def test_gains_have_the_moments_of_the_beta_distribution():
    for concentration in (1, 10):
        gains = RandomGain(concentration).gains(torch.arange(20_000))
        assert gains.min() > 0.5 and gains.max() < 1.5
        assert gains.mean() == pytest.approx(1.0, abs=0.006)
        assert gains.var() == pytest.approx(1 / (4 * (2 * concentration + 1)), rel=0.05)


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Spectrograms(frames=0), "frames must be at least min_frames 16, or null for as many as a sound has, got 0"),
        (lambda: RandomGain(0), "concentration must be at least 1, got 0"),
        (lambda: FilterAugment(bands=0), "bands must be at least 1 and decibels above 0, got 0 and 6.0"),
        (lambda: FilterAugment(decibels=-1.0), "bands must be at least 1 and decibels above 0, got 4 and -1.0"),
        (lambda: SpecAugment(time_width=-3), "masks and widths must be at least 0, got time_width -3"),
        (lambda: SpecAugment(time_share=0.0), r"time_share must be in \(0, 1\], got 0.0"),
        (lambda: Spectrograms(min_frames=0), "min_frames must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_short_sounds_are_filled_up_as_the_workers_do_it():
    items = sounds(300, 9000, 2799)
    made = Spectrograms(min_frames=16)(items, train=False)
    assert made.lengths.tolist() == [16, 54, 16]
    transform = SpectrogramTransform(AudioTransform(seconds=None), pad=True)
    parts = items.values.split([300, 9000, 2799])
    expected = [transform(Waveform(part, 16_000), torch.Generator(), train=False).values for part in parts]
    assert torch.equal(made.values, torch.cat(expected))
