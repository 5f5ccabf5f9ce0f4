"""Crops of sounds: where they lie, how long they are, and that resampling keeps the pitch."""

import numpy as np
import pytest
import torch

from multimodal.tokenizers.audio import AudioTransform
from multimodal.tokenizers.audio.transform import Waveform, _ratio, _resampled
from tests.tokenizers.zoo import sound, tone


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def counted(count: int, rate: int = 8000) -> Waveform:
    """A sound whose samples tell their place."""
    return Waveform(torch.arange(count, dtype=torch.float32), rate)


def test_a_file_becomes_one_channel():
    samples = np.stack([np.full(4000, 0.5), np.full(4000, -0.25)], 1).astype(np.float32)
    transform = AudioTransform(8000, seconds=None)
    item = transform(transform.decode(sound("WAV", "FLOAT", 8000, samples=samples)), draw(), train=False)
    assert item.ragged and item.values.dtype == torch.float32
    assert torch.equal(item.values, torch.full((4000,), 0.125))


def test_evaluation_takes_the_middle_and_draws_nothing():
    generator = draw()
    state = generator.get_state()
    values = AudioTransform(8000, seconds=0.5)(counted(10_000), generator, train=False).values
    assert values.tolist() == list(range(3000, 7000))
    assert torch.equal(generator.get_state(), state)


def test_training_crops_are_whole_and_reach_both_ends():
    transform, generator = AudioTransform(8000, seconds=0.5), draw()
    crops = [transform(counted(4005), generator, train=True).values for _ in range(200)]
    assert all(len(crop) == 4000 and (crop.diff() == 1).all() for crop in crops)
    assert {int(crop[0]) for crop in crops} == set(range(6))


def test_speed_changes_length_and_pitch_in_training_alone():
    transform = AudioTransform(16_000, seconds=None, speeds=(0.8, 1.25))
    waveform = Waveform(torch.from_numpy(tone(0.5, 16_000)[:, 0]), 16_000)
    assert len(transform(waveform, draw(), train=False).values) == 8000
    found = set()
    for seed in range(8):
        part = transform.crop(waveform, draw(seed), train=True)
        assert len(part.samples) == pytest.approx(8000 / part.speed, abs=1) and part.start_s == 0
        loudest = torch.fft.rfft(part.samples).abs().argmax().item() * 16_000 / len(part.samples)
        assert loudest == pytest.approx(440 * part.speed, rel=0.01)
        found.add(part.speed)
    assert found == {0.8, 1.25}


def test_crops_of_a_speed_are_as_long_as_others():
    transform = AudioTransform(8000, seconds=0.5, speeds=(2.0,))
    part = transform.crop(counted(12_000), draw(3), train=True)
    assert len(part.samples) == 4000 and float(part.samples[100]) == pytest.approx(part.start_s * 8000 + 2 * 100, abs=5)


def test_short_sounds_are_taken_whole():
    assert len(AudioTransform(8000, seconds=0.5)(counted(100), draw(), train=True).values) == 100


@pytest.mark.parametrize("rate", [8000, 11_127, 22_050, 44_100, 48_000, 128_000])
def test_resampling_keeps_length_and_pitch(rate):
    transform = AudioTransform(16_000, seconds=0.4)
    values = transform(Waveform(torch.from_numpy(tone(0.5, rate)[:, 0]), rate), draw(), train=True).values
    assert len(values) == 6400
    spectrum = torch.fft.rfft(values * torch.hann_window(6400)).abs()
    assert abs(spectrum.argmax().item() * 2.5 - 440) <= 2.5
    assert values[500:-500].abs().max() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("rate", "wanted"), [(1003, 16_000), (44_101, 16_000), (767_999, 16_000), (16_001, 16_000), (1000, 768_000)])
def test_odd_rates_need_no_large_filter(rate, wanted):
    ratio = _ratio(rate, wanted)
    assert ratio.numerator * ratio.denominator <= 2**20
    assert ratio * rate / wanted == pytest.approx(1, abs=1e-4)
    assert abs(len(_resampled(torch.zeros(rate), rate, wanted)) - wanted) <= 2 + wanted * 1e-4


@pytest.mark.parametrize(("rate", "wanted"), [(44_100, 16_000), (11_025, 16_000), (48_000, 44_100), (192_000, 11_025)])
def test_usual_rates_are_met_exactly(rate, wanted):
    assert _ratio(rate, wanted) * rate == wanted


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"sample_rate_hz": 10}, "sample_rate_hz"), ({"seconds": 0.0}, "seconds"), ({"min_seconds": 2.0, "max_seconds": 1.0}, "min_seconds")],
)
def test_impossible_settings_are_refused(settings, name):
    with pytest.raises(ValueError, match=name):
        AudioTransform(**settings)
