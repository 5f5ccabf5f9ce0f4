"""The class of each frame is that of the very crop that was drawn."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.modality import Input
from multimodal.tokenizers.audio import AudioTransform, FrameLabelTransform, LogMel, SegmentReader, SpectrogramEmbed, SpectrogramTransform
from multimodal.tokenizers.audio.transform import Waveform

CLASSES = ("quiet", "low", "high")


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labels(*segments: tuple[float, float, str]) -> bytes:
    return "".join(f"{start}\t{end}\t{name}\n" for start, end, name in segments).encode()


def build(seconds=None, background=None, speeds=(1.0,), **more) -> FrameLabelTransform:
    spectrogram = SpectrogramTransform(AudioTransform(seconds=seconds, speeds=speeds), LogMel(num_bins=32), **more)
    return FrameLabelTransform(SegmentReader(CLASSES), spectrogram, background)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 1000), min_size=2, max_size=8, unique=True), st.sampled_from([None, "quiet"]), st.integers(0, 3), st.booleans()
)
def test_labels_are_those_of_a_loop_over_the_frames(times, background, seed, train):
    times = sorted(times)[: len(times) // 2 * 2]
    segments = [(start / 1000, end / 1000, CLASSES[1 + i % 2]) for i, (start, end) in enumerate(zip(times[::2], times[1::2], strict=True))]
    transform, waveform = build(0.4, background), Waveform(torch.zeros(16_640), 16_000)
    item = transform.labelled(waveform, transform.decode_labels(labels(*segments)), draw(seed), train)
    start = transform.spectrogram.sound.crop(waveform, draw(seed), train).start_s
    assert len(item.labels) == len(item.values) == 38 and item.labels.dtype == torch.int16
    for frame, found in enumerate(item.labels.tolist()):
        middle = start + (frame * 160 + 200) / 16_000
        inside = [CLASSES.index(name) for first, last, name in segments if first <= middle < last]
        assert found == (inside[0] if inside else 0 if background else -1)


@pytest.mark.parametrize(("rate", "speed"), [(16_000, 1.0), (44_100, 1.0), (16_000, 0.8), (22_050, 1.1)])
def test_labels_follow_the_sound_wherever_the_crop_is(rate, speed):
    """Half a second of silence, then noise: the label changes where the energy does, in every crop."""
    samples = torch.cat([torch.zeros(rate // 2), torch.randn(rate // 2, generator=draw())])
    transform = build(0.4, speeds=(speed,))
    segments = transform.decode_labels(labels((0, 0.5, "quiet"), (0.5, 1, "high")))
    seen = set()
    for seed in range(12):
        item = transform.labelled(Waveform(samples, rate), segments, draw(seed), train=True)
        loud = item.values.mean(1) > item.values.mean(1).min() + 5 if item.values.mean(1).std() > 3 else item.values.mean(1) > 10
        change = (item.labels.diff() != 0).nonzero().flatten().tolist()
        seen.add(len(change))
        assert (loud == (item.labels == 2)).float().mean() > 0.94  # a frame reaches 12 ms beyond its middle
    assert seen == {0, 1}


def test_crops_of_the_sound_are_those_of_the_plain_transform():
    transform, waveform = build(0.4), Waveform(torch.randn(16_000, generator=draw()), 16_000)
    for seed in range(3):
        plain = transform.spectrogram(waveform, draw(seed), train=True)
        assert torch.equal(plain.values, transform(waveform, draw(seed), train=True).values)


def test_frames_that_fill_up_have_no_class():
    waveform = Waveform(torch.randn(3200, generator=draw()), 16_000)
    whole = build(frames=30, background="quiet")
    item = whole.labelled(waveform, whole.decode_labels(b""), draw(), train=False)
    assert item.labels.tolist() == [0] * 19 + [-1] * 11  # frame 19 has its middle at 0.2025 s, after the end
    padded = build(pad=True, min_frames=30, background="quiet")
    assert padded.labelled(waveform, padded.decode_labels(b""), draw(), train=False).labels.tolist() == [0] * 19 + [-1] * 11


def test_a_sound_without_segments_has_no_classes():
    transform = build(background="quiet")
    assert (transform(Waveform(torch.zeros(8000), 16_000), draw(), train=True).labels == -1).all()


def test_segments_of_another_sound_are_refused():
    transform = build()
    segments = transform.decode_labels(labels((0, 0.2, "low"), (0.5, 9, "high")))
    with pytest.raises(ValueError, match=r"a segment starts at 0.5 s, after the end of the sound at 0.5 s"):
        transform.labelled(Waveform(torch.zeros(8000), 16_000), segments, draw(), train=False)


def test_the_example_is_like_an_item():
    item = build(0.4).example()
    assert item.ragged and item.labels.shape == item.values.shape[:1] == (38,)


def test_statistics_of_another_front_end_are_refused():
    with pytest.raises(ValueError, match=r"mean -4.2677 is not of spectrograms with gain 32768"):
        Input(8, build(0.4), SpectrogramEmbed(8, mean=-4.2677, std=4.569))


def test_a_background_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match="background must be one of the classes quiet, low, high, or null; got 'none'"):
        build(background="none")
