"""Clips show the picture of their time, whatever the container, the codec or the frame rate."""

import functools
import io
import random
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from multimodal.tokenizers.video import VideoLimits, decode_clip, open_film
from multimodal.tokenizers.video.by_pyav import PyAVFilm
from tests.tokenizers.zoo import film, half, muxed_sound, picture, sound

KINDS = [("mp4", "libx264"), ("mp4", "mpeg4"), ("avi", "mpeg4"), ("avi", "mjpeg"), ("matroska", "libx264"), ("webm", "libvpx-vp9")]
STREAMS = [("mpeg", "mpeg2video"), ("mpegts", "libx264")]


def numbers(clip: torch.Tensor) -> list[int]:
    """Which picture each is; see ``film``."""
    assert clip.dtype == torch.uint8 and clip.shape[1] == 3
    lower = clip[:, :, clip.shape[2] // 2 :].float().mean((1, 2))
    bits = lower.view(len(clip), 8, -1).mean(-1) > 128
    return (bits * 2 ** torch.arange(8)).sum(1).tolist()


@pytest.mark.parametrize(("kind", "codec"), KINDS + STREAMS)
@pytest.mark.parametrize(("start", "rate"), [(0.0, 30.0), (0.0, 10.0), (0.5, 4.0), (1.0, 30.0), (0.21, 15.0)])
def test_clips_show_the_pictures_of_their_times(kind, codec, start, rate):
    clip = decode_clip(film(kind, codec, frames=60), start, 4, rate)
    assert clip.shape == (4, 3, 48, 64)
    due = [int((start + number / rate) * 30 + 1e-2) for number in range(4)]
    assert numbers(clip) == due


@pytest.mark.parametrize(("kind", "codec"), [("matroska", "libx264"), ("mp4", "mpeg4"), ("webm", "libvpx-vp9")])
def test_variable_frame_rates_go_by_time(kind, codec):
    data = film(kind, codec, frames=8, at=[0, 0.1, 0.2, 1.0, 1.1, 3.0, 3.2, 4.0])
    assert numbers(decode_clip(data, 0.05, 8, 2.0)) == [0, 2, 3, 4, 4, 4, 5, 6]
    assert numbers(decode_clip(data, 3.05, 2, 10.0)) == [5, 5]


def test_pictures_may_be_shown_many_times():
    assert numbers(decode_clip(film(frames=10), 0.0, 12, 120.0)) == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(("turn", "corner"), [(90, (-1, 0)), (-90, (0, -1)), (180, (-1, -1))])
def test_films_are_turned_upright(turn, corner):
    clip = decode_clip(film(frames=2, turn=turn), 0.0, 1, 1.0)
    assert clip.shape == ((1, 3, 48, 64) if turn == 180 else (1, 3, 64, 48))
    down, right = (8 if place == 0 else -8 for place in corner)
    bright = clip[0, 0].float() > 128
    assert bright[down, right] and not bright[-down, right] and not bright[down, -right]


@functools.cache
def filmed(kind: str, codec: str, settings: str = "", reordered: int = 0, variable: bool = False) -> bytes:
    """Ninety pictures of moving noise, 25 a second, a key frame every 15; or, ``variable``, each shown for 10 to 300 ms.

    ``settings``: of x264; ``reordered``: pictures of an MPEG codec that may lie between two others in display.
    """
    noise = np.random.default_rng(0).integers(0, 256, (6, 8), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    buffer, generator, time = io.BytesIO(), random.Random(0), 0
    with av.open(buffer, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=25, options={"x264-params": settings} if settings else {})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 15
        stream.max_b_frames = reordered or stream.max_b_frames
        if variable:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(90):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, (number, 2 * number), (0, 1)), format="gray").reformat(format="yuv420p")
            frame.pts = time if variable else number
            time += generator.choice((10, 40, 300))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def everything(data: bytes) -> list[tuple[float, np.ndarray]]:
    """Decode a whole film: times from the first picture on, and pictures ``(height, width, 3)``."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        return [
            (float((frame.pts - (stream.start_time or 0)) * stream.time_base), frame.to_ndarray(format="rgb24", threads=1))
            for frame in container.decode(stream)
        ]


def some_clips(end_s: float) -> list[list[float]]:
    """Times of the pictures of dense and sparse clips all over a film."""
    generator = random.Random(0)
    spans = [(generator.choice((0.2, 1.0, end_s / 2, end_s)), generator.choice((1, 4, 16))) for _ in range(12)]
    starts = [generator.uniform(0, max(0.0, end_s - span)) for span, _ in spans]
    clips = [[start + span * number / count for number in range(count)] for start, (span, count) in zip(starts, spans, strict=True)]
    return [[0.0], [end_s], *clips]


@pytest.mark.parametrize(
    ("kind", "codec", "settings", "reordered"),
    [
        ("mp4", "libx264", "b-pyramid=normal:bframes=5", 0),
        ("mp4", "libx264", "open-gop=1:bframes=5", 0),
        ("mp4", "libx264", "intra-refresh=1", 0),  # has one whole key frame, and later ones that need a few pictures to be so
        ("matroska", "libx264", "open-gop=1", 0),
        ("mpegts", "libx264", "open-gop=1", 0),
        ("mp4", "mpeg4", "", 2),
        ("avi", "mpeg4", "", 2),
        ("mpegts", "mpeg2video", "", 2),
        ("mpeg", "mpeg2video", "", 2),
        ("mpeg", "mpeg1video", "", 2),
        ("webm", "libvpx-vp9", "", 0),
    ],
)
def test_clips_are_those_of_decoding_everything(kind, codec, settings, reordered):
    data = filmed(kind, codec, settings, reordered, variable=kind in ("matroska", "webm"))
    pictures = everything(data)
    assert len(pictures) == 90
    opened = open_film(data)
    for times in some_clips(pictures[-1][0]):
        due = [[picture for time, picture in pictures if time <= max(wanted, pictures[0][0]) + 1e-3][-1] for wanted in times]
        assert np.array_equal(opened.pictures_at(times).permute(0, 2, 3, 1).numpy(), np.stack(due)), times


@pytest.mark.parametrize("settings", ["bframes=3", "bframes=0"])
def test_reordered_pictures_of_an_avi_come_in_their_order(settings):
    """An AVI has times of decoding only; decoded whole, it shows its pictures in order, 25 a second."""
    data = filmed("avi", "libx264", settings)
    pictures = [picture for _, picture in everything(data)]
    opened = open_film(data)
    for times in some_clips(89 / 25):
        due = [pictures[int(time * 25 + 0.025)] for time in times]
        assert np.array_equal(opened.pictures_at(times).permute(0, 2, 3, 1).numpy(), np.stack(due)), times


def pictures_decoded(monkeypatch, data: bytes, times_s: list[float]) -> list[float]:
    """Return the times of the pictures that come out of the decoder for a clip."""
    seen = []
    decode = PyAVFilm._decoded

    def counted(self, packets, wanted):
        for frame in decode(self, packets, wanted):
            seen.append(float((frame.pts - self._begin) * self._stream.time_base))
            yield frame

    monkeypatch.setattr(PyAVFilm, "_decoded", counted)
    assert len(open_film(data).pictures_at(times_s)) == len(times_s)
    monkeypatch.setattr(PyAVFilm, "_decoded", decode)
    return seen


def test_a_clip_in_the_middle_decodes_little(monkeypatch):
    times = pictures_decoded(monkeypatch, film("mp4", "mpeg4", frames=60), [1.5, 1.5 + 1 / 30])
    assert min(times) > 1.0 and len(times) <= 12  # a key frame comes every 12 pictures


def test_key_frames_between_distant_pictures_are_not_passed_through(monkeypatch):
    times = pictures_decoded(monkeypatch, filmed("mp4", "mpeg4"), [0.04, 3.0])
    assert [round(25 * time) for time in times] == [0, 1, 75]


def test_pictures_that_nothing_refers_to_are_skipped(monkeypatch):
    data = filmed("mp4", "mpeg4", reordered=2)  # shown as I B B P B B P ...
    times = pictures_decoded(monkeypatch, data, [number / 25 for number in (0, 4, 9)])
    assert [round(25 * time) for time in times] == [0, 3, 4, 6, 9]


@pytest.mark.parametrize("kind", ["mp4", "mov", "matroska", "webm"])
def test_a_film_cut_in_half_is_refused(kind):
    with pytest.raises(ValueError, match=r"cut off: \d+ of the \d+ bytes"):
        open_film(half(film(kind, "libvpx-vp9" if kind == "webm" else "libx264")))


def test_an_avi_cut_in_half_is_refused():
    data = film("avi", "mjpeg")
    with pytest.raises(ValueError, match="'LIST' announces are there"):
        open_film(half(data))


def test_pictures_that_end_before_the_film_are_missed():
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
def test_files_without_pictures_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        open_film(data)


def test_limits():
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


def test_clips_past_the_end_are_refused():
    with pytest.raises(ValueError, match=r"a clip from 0.500 to 1.250 s; the film has 1.000 s"):
        decode_clip(film(frames=30), 0.5, 4, 4.0)


def test_no_playlist_is_opened(tmp_path, monkeypatch):
    """FFmpeg would read the files that a text names."""
    inner = tmp_path / "inner.mp4"
    inner.write_bytes(film(frames=3))
    for text in (f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{inner}\n#EXT-X-ENDLIST\n", f"ffconcat version 1.0\nfile '{inner}'\n"):
        with pytest.raises(ValueError, match="not a film that is known"):
            open_film(text.encode())


def test_a_film_can_be_asked_again():
    opened = open_film(film(frames=45))
    assert [numbers(opened.pictures_at([at])) for at in (1.0, 0.0, 0.5)] == [[30], [0], [15]]
