"""Bins of mean 0 and deviation 1 in each item, slopes in time, and the statistics that an embedding must have after them."""

from functools import partial

import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.batch import Items
from multimodal.modality import Input
from multimodal.tokenizers.audio import AudioTransform, Deltas, LogMel, NormalizeBins, SpectrogramEmbed, Spectrograms, SpectrogramTransform


def spectrograms(*lengths: int, bins: int = 6) -> Items:
    count, generator = len(lengths), torch.Generator().manual_seed(sum(lengths))
    values = torch.randn(sum(lengths), bins, generator=generator) * torch.arange(1, bins + 1) - 9
    return Items(values, torch.arange(count), torch.arange(count), torch.tensor(lengths))


def dense(count: int, frames: int) -> Items:
    values = spectrograms(count * frames).values.view(count, frames, 6)
    return Items(values, torch.arange(count), torch.arange(count))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=5))
def test_each_bin_of_each_item_has_mean_0_and_deviation_1(lengths):
    items = spectrograms(*lengths)
    for own, made in zip(items.values.split(lengths), NormalizeBins()(items, train=True).values.split(lengths), strict=True):
        torch.testing.assert_close(made, (own - own.mean(0)) / own.std(0), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("step", [NormalizeBins(), Deltas()])
def test_items_of_one_length_are_treated_alike(step):
    items = dense(3, 11)
    ragged = Items(items.values.flatten(0, 1), items.sample, items.seed, torch.full((3,), 11))
    made = step(items, train=False).values
    assert made.shape[:2] == (3, 11)
    torch.testing.assert_close(made.flatten(0, 1), step(ragged, train=False).values)


@pytest.mark.parametrize("lengths", [(1, 400), (400,), (1,)])
def test_what_does_not_move_becomes_zeros(lengths):
    items = spectrograms(*lengths)
    made = NormalizeBins()(Items(torch.full_like(items.values, -15.942385), items.sample, items.seed, items.lengths), train=False)
    assert made.values.abs().max() < 1e-3 and made.values.dtype == torch.float32


@pytest.mark.parametrize("reach", [1, 2, 3])
def test_slopes_are_those_of_torchaudio(reach):
    lengths = (1, 30, 4)
    items = spectrograms(*lengths)
    made = Deltas(reach=reach)(items, train=False)
    assert made.values.shape == (35, 18) and torch.equal(made.lengths, items.lengths)
    for own, found in zip(items.values.split(lengths), made.values.split(lengths), strict=True):
        first = torchaudio.functional.compute_deltas(own.T, 2 * reach + 1, mode="replicate").T
        second = torchaudio.functional.compute_deltas(first.T, 2 * reach + 1, mode="replicate").T
        torch.testing.assert_close(found, torch.cat([own, first, second], 1), atol=1e-5, rtol=1e-4)


def test_numbers_of_slopes_are_checked():
    with pytest.raises(ValueError, match="order and reach must be at least 1, got 0 and 2"):
        Deltas(order=0)


@pytest.mark.parametrize("gain", [1.0, 32768.0])
def test_normalised_spectrograms_of_any_gain_want_mean_0(gain):
    transform = SpectrogramTransform(features=LogMel(gain=gain))
    embed = partial(SpectrogramEmbed, mean=0.0, std=1.0)
    Input(8, transform, embed, preparation=[NormalizeBins()])
    Input(8, AudioTransform(), embed, preparation=[Spectrograms(LogMel(gain=gain)), Deltas(), NormalizeBins()])
    with pytest.raises(ValueError, match=r"mean 15\.4166 is not of spectrograms that NormalizeBins normalises: set mean to 0"):
        Input(8, transform, SpectrogramEmbed, preparation=[NormalizeBins()])
    if gain > 1:
        with pytest.raises(ValueError, match="mean 0 is not of spectrograms with gain 32768"):
            Input(8, transform, embed)
