"""Sounds decode to what was written, whoever reads them; limits come from the header."""

import numpy as np
import pytest
import soundfile
import torch

from multimodal.tokenizers.audio import AudioLimits, decode_audio
from multimodal.tokenizers.audio import decode as decode_module
from tests.tokenizers.zoo import half, muxed_sound, sound, tone, wav_with

STEREO = {
    ("WAV", "PCM_16"): 2**-15,
    ("WAV", "PCM_U8"): 2**-6,
    ("WAV", "PCM_24"): 2**-23,
    ("WAV", "FLOAT"): 0,
    ("FLAC", "PCM_16"): 2**-15,
    ("AIFF", "PCM_24"): 2**-23,
}


@pytest.mark.parametrize(("kind", "subtype"), STEREO)
@pytest.mark.parametrize("rate", [8000, 44_100])
def test_lossless_sounds_are_what_was_written(kind, subtype, rate):
    waveform, found = decode_audio(sound(kind, subtype, rate, channels=2))
    assert found == rate
    expected = torch.from_numpy(tone(rate=rate, channels=2).T)
    assert waveform.shape == expected.shape
    assert (waveform - expected).abs().max() <= STEREO[kind, subtype]


@pytest.mark.parametrize(
    ("kind", "subtype", "rate"), [("OGG", "VORBIS", 44_100), ("OGG", "OPUS", 48_000), ("MP3", "MPEG_LAYER_III", 44_100)]
)
def test_lossy_sounds_are_near_what_was_written(kind, subtype, rate):
    waveform, found = decode_audio(sound(kind, subtype, rate))
    assert found == rate and abs(waveform.shape[1] - rate // 2) <= 200
    middle = waveform[0, 5000:13_000]
    spectrum = torch.fft.rfft(middle * torch.hann_window(8000))
    assert abs(spectrum.abs().argmax().item() * rate / 8000 - 440) <= rate / 8000
    assert middle.abs().max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_is_read_alike_by_ffmpeg_and_by_libsndfile(subtype, monkeypatch):
    data = sound("OGG", subtype, 48_000)
    waveform, _ = decode_audio(data)
    monkeypatch.setattr(decode_module, "torchcodec_works", lambda: False)
    monkeypatch.setattr(decode_module, "_by_pyav", refuse)
    other, _ = decode_audio(data)
    shift = min(range(0, 257), key=lambda lag: (other[0, lag + 4000 : lag + 8000] - waveform[0, 4000:8000]).abs().max().item())
    assert (other[0, shift + 4000 : shift + 8000] - waveform[0, 4000:8000]).abs().max() < 2e-3
    assert shift in (0, 128, 256)  # FFmpeg leaves out the first short block of Vorbis


def refuse(*arguments, **settings):
    raise ValueError("not by this one")


def test_what_nobody_reads_is_refused_with_the_first_reason(monkeypatch):
    monkeypatch.setattr(decode_module, "torchcodec_works", lambda: False)
    monkeypatch.setattr(decode_module, "_by_pyav", refuse)
    monkeypatch.setattr(decode_module, "_by_soundfile", refuse)
    with pytest.raises(ValueError, match="not by this one"):
        decode_audio(sound("OGG", "VORBIS"))


def test_the_sound_of_films_and_phones_is_read():
    for kind, codec in (("ipod", "aac"), ("webm", "libopus"), ("matroska", "flac"), ("adts", "aac")):
        waveform, rate = decode_audio(muxed_sound(kind, codec))
        assert rate == 48_000 and abs(waveform.shape[1] - 23_552) <= 2048, kind


def test_an_mp3_without_a_count_is_read_to_its_end():
    data = sound("MP3", "MPEG_LAYER_III")
    assert b"Xing" in data[:200] or b"Info" in data[:200]
    uncounted = data.replace(b"Xing", b"none").replace(b"Info", b"none")
    waveform, _ = decode_audio(uncounted)
    assert abs(waveform.shape[1] - 22_050) <= 3 * 1152


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (AudioLimits(max_seconds=0.4), r"0.5 s or 44100 values are over max_seconds 0.4"),
        (AudioLimits(max_values=44_099), r"44100 values are over .* max_values 44099"),
        (AudioLimits(max_channels=1), "2 channels; at least 1 and at most max_channels 1"),
        (AudioLimits(sample_rates_hz=(8000, 16_000)), r"44100 Hz; it must be in \[8000, 16000\]"),
        (AudioLimits(min_seconds=0.6), "22050 samples at 44100 Hz; at least 1 and min_seconds 0.6"),
        (AudioLimits(max_bytes=100), "bytes is over max_bytes 100"),
    ],
)
@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_limits(limits, message, kind):
    with pytest.raises(ValueError, match=message):
        decode_audio(sound(kind, "PCM_16", channels=2), limits)
    exact = AudioLimits(min_seconds=0.5, max_seconds=0.5, max_values=44_100, max_channels=2, sample_rates_hz=(44_100, 44_100))
    assert decode_audio(sound(kind, "PCM_16", channels=2), exact)[0].shape == (2, 22_050)


@pytest.mark.parametrize(
    "data", [muxed_sound("webm", "libopus"), muxed_sound("adts", "aac"), sound("OGG", "VORBIS")], ids=["webm", "adts", "ogg"]
)
def test_limits_hold_for_what_ffmpeg_reads(data):
    with pytest.raises(ValueError, match=r"over max_seconds 0.2"):
        decode_audio(data, AudioLimits(max_seconds=0.2))


def test_headers_are_judged_before_anything_is_decoded(monkeypatch):
    def never(*arguments, **settings):
        raise AssertionError("decoded")

    monkeypatch.setattr(soundfile.SoundFile, "read", never)
    with pytest.raises(ValueError, match="max_seconds"):
        decode_audio(sound("FLAC", "PCM_16"), AudioLimits(max_seconds=0.1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_no_sound_are_refused(value):
    samples = tone()
    samples[7] = value
    with pytest.raises(ValueError, match="must be finite"):
        decode_audio(sound("WAV", "FLOAT", samples=samples))


def test_a_wav_cut_in_half_names_both_numbers():
    with pytest.raises(ValueError, match="22028 of the 44100 bytes"):
        decode_audio(half(sound("WAV", "PCM_16")))


def test_a_header_that_claims_gigabytes_costs_nothing():
    waveform, _ = decode_audio(wav_with(40, "<I", 0xFFFFFFFE))
    assert waveform.shape == (1, 22_050)
