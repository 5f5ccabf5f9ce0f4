"""Clips show the picture of their time, whatever the container, the frame rate or the decoder."""

import pytest
import torch

from multimodal.tokenizers.ffmpeg import torchcodec_works
from multimodal.tokenizers.video import VideoLimits, decode_clip, open_film
from multimodal.tokenizers.video import decode as decode_module
from multimodal.tokenizers.video.by_pyav import PyAVFilm
from tests.tokenizers.zoo import film, half, muxed_sound, picture, sound

KINDS = [("mp4", "libx264"), ("mp4", "mpeg4"), ("avi", "mpeg4"), ("avi", "mjpeg"), ("matroska", "libx264"), ("webm", "libvpx-vp9")]
STREAMS = [("mpeg", "mpeg2video"), ("mpegts", "libx264")]


@pytest.fixture(params=["pyav", "torchcodec"])
def decoder(request, monkeypatch):
    """Each way to decode; where FFmpeg's libraries are missing, only the first."""
    if request.param == "pyav":
        monkeypatch.setattr(decode_module, "torchcodec_works", lambda: False)
    elif not torchcodec_works():
        pytest.skip("torchcodec does not find FFmpeg's libraries")


def numbers(clip: torch.Tensor) -> list[int]:
    """Which picture each is; see ``film``."""
    assert clip.dtype == torch.uint8 and clip.shape[1] == 3
    lower = clip[:, :, clip.shape[2] // 2 :].float().mean((1, 2))
    bits = lower.view(len(clip), 8, -1).mean(-1) > 128
    return (bits * 2 ** torch.arange(8)).sum(1).tolist()


@pytest.mark.parametrize(("kind", "codec"), KINDS + STREAMS)
@pytest.mark.parametrize(("start", "rate"), [(0.0, 30.0), (0.0, 10.0), (0.5, 4.0), (1.0, 30.0), (0.21, 15.0)])
def test_clips_show_the_pictures_of_their_times(decoder, kind, codec, start, rate):
    clip = decode_clip(film(kind, codec, frames=60), start, 4, rate)
    assert clip.shape == (4, 3, 48, 64)
    due = [int((start + number / rate) * 30 + 1e-2) for number in range(4)]
    assert numbers(clip) == due


@pytest.mark.parametrize(("kind", "codec"), [("matroska", "libx264"), ("mp4", "mpeg4"), ("webm", "libvpx-vp9")])
def test_variable_frame_rates_go_by_time(decoder, kind, codec):
    data = film(kind, codec, frames=8, at=[0, 0.1, 0.2, 1.0, 1.1, 3.0, 3.2, 4.0])
    assert numbers(decode_clip(data, 0.05, 8, 2.0)) == [0, 2, 3, 4, 4, 4, 5, 6]
    assert numbers(decode_clip(data, 3.05, 2, 10.0)) == [5, 5]


def test_pictures_may_be_shown_many_times(decoder):
    assert numbers(decode_clip(film(frames=10), 0.0, 12, 120.0)) == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(("turn", "corner"), [(90, (-1, 0)), (-90, (0, -1)), (180, (-1, -1))])
def test_films_are_turned_upright(decoder, turn, corner):
    clip = decode_clip(film(frames=2, turn=turn), 0.0, 1, 1.0)
    assert clip.shape == ((1, 3, 48, 64) if turn == 180 else (1, 3, 64, 48))
    down, right = (8 if place == 0 else -8 for place in corner)
    bright = clip[0, 0].float() > 128
    assert bright[down, right] and not bright[-down, right] and not bright[down, -right]


def test_a_clip_in_the_middle_decodes_little(monkeypatch):
    decoded = []
    monkeypatch.setattr(decode_module, "torchcodec_works", lambda: False)
    timed = PyAVFilm._timed
    monkeypatch.setattr(PyAVFilm, "_timed", lambda self: (decoded.append(found[0]) or found for found in timed(self)))
    decode_clip(film("mp4", "mpeg4", frames=60), 1.5, 2, 30.0)
    assert min(decoded) > 1.0 and len(decoded) <= 15  # a key frame comes every 12 pictures


@pytest.mark.parametrize("kind", ["mp4", "mov", "matroska", "webm"])
def test_a_film_cut_in_half_is_refused(decoder, kind):
    with pytest.raises(ValueError, match=r"cut off: \d+ of the \d+ bytes"):
        open_film(half(film(kind, "libvpx-vp9" if kind == "webm" else "libx264")))


def test_an_avi_cut_in_half_is_refused(decoder):
    data = film("avi", "mjpeg")
    with pytest.raises(ValueError, match="'LIST' announces are there"):
        open_film(half(data))


def test_pictures_that_end_before_the_film_are_missed(decoder):
    data = film("avi", "mpeg4", frames=90)
    start, end = data.index(b"movi"), data.index(b"idx1")
    blank = bytearray(data)
    blank[start + (end - start) // 2 : end] = bytes(end - start - (end - start) // 2)  # as a disk leaves it after a crash
    with pytest.raises(ValueError, match=r"damaged"):
        decode_clip(bytes(blank), 2.0, 4, 8.0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (muxed_sound("mp4"), "no video stream"),
        (muxed_sound("matroska", "flac"), "no video stream"),
        (sound("WAV", "PCM_16"), "no video stream in it: a wav file holds sound"),
        (picture("jpeg"), "not a film"),
        (b"", r"not a film that is known \(0 bytes\)"),
    ],
    ids=["mp4", "mkv", "wav", "jpeg", "empty"],
)
def test_files_without_pictures_are_refused(decoder, data, message):
    with pytest.raises(ValueError, match=message):
        open_film(data)


def test_limits(decoder):
    data = film(frames=30)
    for limits, message in (
        (VideoLimits(max_pixels=64 * 48 - 1), "64 x 48 pixels; at least one and at most max_pixels 3071"),
        (VideoLimits(max_seconds=0.9), "a film of 1.00 s; it must be longer than 0 and at most max_seconds 0.9"),
        (VideoLimits(max_bytes=100), "over max_bytes 100"),
        (VideoLimits(max_values=4 * 3 * 64 * 48 - 1), "4 frames of 64 x 48 pixels are 36864 values, over max_values 36863"),
    ):
        with pytest.raises(ValueError, match=message):
            decode_clip(data, 0.0, 4, 8.0, limits)
    exact = VideoLimits(max_pixels=64 * 48, max_seconds=1.0, max_bytes=len(data), max_values=4 * 3 * 64 * 48)
    assert decode_clip(data, 0.0, 4, 8.0, exact).shape == (4, 3, 48, 64)


@pytest.mark.parametrize(("start", "frames", "rate"), [(-0.1, 4, 8.0), (0.0, 0, 8.0), (0.0, 4, 0.0), (float("nan"), 4, 8.0)])
def test_impossible_clips_are_refused(start, frames, rate):
    with pytest.raises(ValueError, match="a clip has at least 1 frame"):
        decode_clip(film(frames=3), start, frames, rate)


def test_clips_past_the_end_are_refused(decoder):
    with pytest.raises(ValueError, match=r"a clip from 0.500 to 1.250 s; the film has 1.000 s"):
        decode_clip(film(frames=30), 0.5, 4, 4.0)


def test_no_playlist_is_opened(tmp_path, monkeypatch):
    """FFmpeg would read the files that a text names."""
    inner = tmp_path / "inner.mp4"
    inner.write_bytes(film(frames=3))
    for text in (f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{inner}\n#EXT-X-ENDLIST\n", f"ffconcat version 1.0\nfile '{inner}'\n"):
        with pytest.raises(ValueError, match="not a film that is known"):
            open_film(text.encode())


def test_a_film_can_be_asked_again(decoder):
    opened = open_film(film(frames=45))
    assert [numbers(opened.pictures_at([at])) for at in (1.0, 0.0, 0.5)] == [[30], [0], [15]]
