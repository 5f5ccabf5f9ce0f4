"""Log-mel spectrograms: equal to Kaldi's as torchaudio has them, with the published numbers of frames."""

import math

import pytest
import torch
from torchaudio.compliance.kaldi import fbank

from multimodal.tokenizers.audio import LogMel

SOUNDS = {
    "noise": 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(0)),
    "tone": 0.5 * torch.sin(torch.arange(16_000) * (2 * math.pi * 440 / 16_000)),
    "silence": torch.zeros(16_000),
    "click": torch.zeros(16_000).index_fill(0, torch.tensor([5000]), 1.0),
}


@pytest.mark.parametrize("rate", [16_000, 22_050])
@pytest.mark.parametrize("bins", [128, 40])
@pytest.mark.parametrize(("window", "gain"), [("povey", 2.0**15), ("hanning", 1.0)], ids=["BEATs", "AST"])
@pytest.mark.parametrize("sound", SOUNDS)
def test_values_are_those_of_kaldi(sound, window, gain, bins, rate):
    own = LogMel(rate, bins, window, gain)(SOUNDS[sound])
    theirs = fbank((SOUNDS[sound] * gain)[None], num_mel_bins=bins, window_type=window, sample_frequency=rate, dither=0.0)
    assert own.shape == theirs.shape
    assert (own - theirs).abs().max() < 5e-4  # of logarithms: rounding of quiet bands beside loud ones


@pytest.mark.parametrize(("seconds", "frames"), [(1, 98), (10, 998), (30, 2998)])
def test_numbers_of_frames_are_the_published_ones(seconds, frames):
    features = LogMel()
    assert features.num_frames(16_000 * seconds) == frames == len(features(torch.zeros(16_000 * seconds)))


@pytest.mark.parametrize("frames", [1, 16, 1024])
def test_the_fewest_samples_make_so_many_frames(frames):
    features = LogMel()
    samples = features.num_samples(frames)
    assert features.num_frames(samples) == frames and features.num_frames(samples - 1) == frames - 1


def test_sounds_end_to_end_are_as_each_alone():
    features, lengths = LogMel(), [16_000, 400, 9_999]
    samples = [SOUNDS["noise"][:length] for length in lengths]
    together = features(torch.cat(samples), torch.tensor(lengths))
    assert features.frame_counts(torch.tensor([*lengths, 399])).tolist() == [98, 1, 60, 0]
    torch.testing.assert_close(together, torch.cat([features(own) for own in samples]), atol=1e-5, rtol=1e-5)
    assert features(torch.zeros(0), torch.zeros(0, dtype=torch.int64)).shape == (0, 128)


def test_values_are_no_further_from_exact_ones_than_kaldis():
    sound = SOUNDS["noise"]
    exact = fbank((sound.double() * 2**15)[None], num_mel_bins=128, sample_frequency=16_000, dither=0.0)
    theirs = fbank((sound * 2**15)[None], num_mel_bins=128, sample_frequency=16_000, dither=0.0)
    assert (LogMel()(sound) - exact).abs().max() <= (theirs - exact).abs().max() * 1.05


def test_gain_adds_its_logarithm():
    quiet, loud = LogMel(gain=1.0)(SOUNDS["noise"]), LogMel()(SOUNDS["noise"])
    heard = loud > 0
    assert heard.float().mean() > 0.9
    assert torch.allclose((loud - quiet)[heard], torch.tensor(2 * math.log(2**15)), atol=1e-3)
    assert 2 * math.log(2**15) == pytest.approx(20.79, abs=0.01)


def test_a_constant_in_the_waveform_does_not_matter():
    features = LogMel(window="hanning", gain=1.0)
    assert (features(SOUNDS["noise"] + 0.25) - features(SOUNDS["noise"])).abs().max() < 1e-2


def test_a_sound_shorter_than_a_frame_is_refused():
    with pytest.raises(ValueError, match="a sound of 399 samples is shorter than a frame of 400"):
        LogMel()(torch.zeros(399))
    assert LogMel().num_frames(399) == 0 and LogMel()(torch.zeros(400)).shape == (1, 128)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_rate_hz": 10}, "sample_rate_hz must be at least 1000, got 10"),
        ({"num_bins": 3}, "num_bins must be at least 4, got 3"),
        ({"gain": 0.0}, "gain must be positive, got 0.0"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        LogMel(**settings)


def test_a_floor_raises_digital_silence_and_nothing_else():
    noise = torch.rand(16_000, generator=torch.Generator().manual_seed(0)) - 0.5
    sound = torch.cat([torch.zeros(8000), noise / 2**15, noise])  # silence, the noise of rounding to 16 bits, and loud
    plain, raised = LogMel()(sound), LogMel(floor=2.5)(sound)
    assert plain.min() < -15.9 and raised.min() == 2.5
    assert torch.equal(raised, plain.clamp(min=2.5))
    lowest, *_, highest = plain[60:140].mean(0)  # of rounding
    assert lowest == pytest.approx(-5.3, abs=0.5) and highest == pytest.approx(5.5, abs=0.5)
