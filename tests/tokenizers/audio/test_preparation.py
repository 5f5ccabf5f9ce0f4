"""Sounds on the device: spectrograms equal to those of the workers, augmentation that belongs to an item."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.batch import Items
from multimodal.tokenizers.audio import AudioTransform, CircularShift, RandomGain, Spectrograms, SpectrogramTransform
from multimodal.tokenizers.audio.transform import Waveform
from tests.tokenizers.audio.made import alone, sounds, split


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


STEPS = [CircularShift(), RandomGain()]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_what_an_item_becomes_is_its_own_affair(step):
    items = sounds(16_000, 4000, 7001)
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Spectrograms(frames=0), "frames must be at least min_frames 16, or null for as many as a sound has, got 0"),
        (lambda: RandomGain(0), "concentration must be at least 1, got 0"),
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
