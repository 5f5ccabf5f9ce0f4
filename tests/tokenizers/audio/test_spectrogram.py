"""Spectrograms in the data workers: whole or of one length, and short sounds refused."""

import numpy as np
import pytest
import torch

from multimodal.tokenizers.audio import AudioTransform, LogMel, SpectrogramTransform
from multimodal.tokenizers.audio.transform import Waveform
from tests.tokenizers.zoo import sound, tone


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, rate: int = 16_000) -> Waveform:
    return Waveform(0.1 * torch.randn(count, generator=draw(1)), rate)


def test_a_file_becomes_the_spectrogram_of_its_crop():
    transform = SpectrogramTransform(AudioTransform(seconds=0.4))
    samples = np.tile(tone(0.5, 16_000), (1, 1))
    decoded = transform.decode(sound("WAV", "FLOAT", 16_000, samples=samples))
    item = transform(decoded, draw(), train=False)
    assert item.ragged and item.values.shape == (38, 128)
    assert torch.equal(item.values, LogMel()(AudioTransform(seconds=0.4)(decoded, draw(), train=False).values))


def test_training_draws_the_crop():
    transform = SpectrogramTransform(AudioTransform(seconds=0.4))
    crops = [transform(noise(16_000), draw(seed), train=True).values for seed in (0, 0, 1)]
    assert torch.equal(crops[0], crops[1]) and not torch.equal(crops[0], crops[2])


def test_items_of_one_length_are_filled_with_zeros_or_cut():
    transform = SpectrogramTransform(AudioTransform(seconds=None), frames=50)
    short, long = (transform(noise(count), draw(), train=False) for count in (6400, 16_000))
    assert not short.ragged and short.values.shape == long.values.shape == (50, 128)
    assert short.values[:38].abs().min() > 0 and not short.values[38:].any()
    assert torch.equal(long.values, LogMel()(noise(16_000).samples)[:50])


def test_short_sounds_are_refused_with_the_least_length():
    transform = SpectrogramTransform()
    with pytest.raises(ValueError, match="a sound of 2799 samples makes 15 frames; min_frames 16 need 2800 samples"):
        transform(noise(2799), draw(), train=False)
    assert len(transform(noise(2800), draw(), train=False).values) == 16


@pytest.mark.parametrize(("frames", "shape"), [(None, (998, 128)), (1024, (1024, 128))])
def test_the_example_is_like_an_item(frames, shape):
    item = SpectrogramTransform(frames=frames).example()
    assert item.values.shape == shape and item.ragged == (frames is None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_frames": 0}, "min_frames must be at least 1, got 0"),
        ({"frames": 15}, "frames must be at least min_frames 16, or null for as many as a sound has, got 15"),
        ({"features": LogMel(8000)}, "sound has 16000 Hz, features 8000 Hz: set both alike"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        SpectrogramTransform(**settings)


def test_short_sounds_are_filled_up_with_silence_where_wanted():
    short = Waveform(torch.randn(800, generator=torch.Generator().manual_seed(0)) / 10, 16_000)
    with pytest.raises(ValueError, match="makes 3 frames; min_frames 16"):
        SpectrogramTransform()(short, torch.Generator(), train=False)
    found = SpectrogramTransform(pad=True)(short, torch.Generator(), train=False).values
    assert torch.equal(found, LogMel()(torch.cat([short.samples, torch.zeros(2000)]))) and len(found) == 16
