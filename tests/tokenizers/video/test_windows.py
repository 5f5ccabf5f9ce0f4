"""Films are cut into the windows that their length has room for, and each clip shows the pictures of its times."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms._presets import VideoClassification

from multimodal.clips.recipe import windows_of
from multimodal.recorded import settings_of
from multimodal.tokenizers.video import ClipWindows, open_film
from multimodal.tokenizers.video.by_pyav import PyAVFilm
from tests.tokenizers.zoo import film

PLAIN = {"resize": 48, "size": 48}


def numbers(clip: torch.Tensor) -> list[int]:
    """Which picture of ``film`` each is."""
    lower = clip[:, :, clip.shape[2] // 2 :].float().mean((1, 2))
    return ((lower.view(len(clip), 8, -1).mean(-1) > 128) * 2 ** torch.arange(8)).sum(1).tolist()


@pytest.mark.parametrize(
    ("seconds", "own", "expected"),
    [
        (1.5, {}, [(0, 1.5)]),
        (4.5, {}, [(0, 1.5), (1.5, 3.0), (3.0, 4.5)]),
        (3.74, {}, [(0, 1.5), (1.5, 3.0), (3.0, 3.74)]),  # 15 of 30 pictures
        (3.69, {}, [(0, 1.5), (1.5, 3.0)]),  # 14
        (3.74, {"min_share": 1.0}, [(0, 1.5), (1.5, 3.0)]),
        (0.7, {}, []),
        (0.75, {}, [(0, 0.75)]),
        (3.0, {"stride_s": 0.75}, [(0, 1.5), (0.75, 2.25), (1.5, 3.0), (2.25, 3.0)]),
        (3.0, {"stride_s": 2.5, "min_share": 0.1}, [(0, 1.5), (2.5, 3.0)]),
        (79.5, {}, [(1.5 * number, 1.5 * number + 1.5) for number in range(53)]),
    ],
)
def test_a_film_has_the_windows_that_it_has_room_for(seconds, own, expected):
    found = [(window.start_s, window.end_s) for window in ClipWindows(**own).windows(seconds)]
    assert found == [pytest.approx(pair) for pair in expected]


@settings(deadline=None, max_examples=40)
@given(st.floats(0.01, 30), st.integers(1, 12), st.floats(0.5, 30), st.floats(0.05, 3), st.floats(0.01, 1), st.booleans())
def test_windows_ascend_and_stay_within_the_film(seconds, num_frames, rate, stride, share, one_after_the_other):
    cut = ClipWindows(num_frames, rate, None if one_after_the_other else stride, share)
    found = list(cut.windows(seconds))
    for number, window in enumerate(found):
        assert window.start_s == number * cut.stride_s < window.end_s <= seconds + 1e-9
        assert len(window.times_s) == num_frames and window.times_s == sorted(window.times_s)
        assert window.start_s == window.times_s[0] and window.times_s[-1] < seconds
        assert len(set(window.times_s)) >= math.ceil(share * num_frames - 1e-9)
    following = len(found) * cut.stride_s
    room = sum(following + frame / rate < seconds - 1e-3 for frame in range(num_frames))
    assert room < share * num_frames or following >= seconds - 1e-3


@pytest.mark.parametrize(("kind", "codec"), [("mp4", "libx264"), ("avi", "mpeg4"), ("mpegts", "libx264")])
@pytest.mark.parametrize("stride", [None, 0.25])
def test_clips_show_the_pictures_of_their_times(kind, codec, stride):
    cut = ClipWindows(5, 10.0, stride, 1.0, **PLAIN)
    clips = list(cut(film(kind, codec, frames=60)))  # 30 a second, 2 s
    assert [clip.start_s for clip in clips] == [pytest.approx(number * (stride or 0.5)) for number in range(len(clips))]
    assert len(clips) == {None: 4, 0.25: 7}[stride]
    for clip in clips:
        assert clip.values.dtype == torch.uint8 and clip.values.shape == (5, 3, 48, 48)
        assert numbers(clip.values) == [int((clip.start_s + frame / 10) * 30 + 1e-2) for frame in range(5)]


def test_variable_frame_rates_go_by_time():
    data = film("matroska", frames=8, at=[0, 0.1, 0.2, 1.0, 1.1, 3.0, 3.2, 4.0])
    clips = list(ClipWindows(4, 2.0, **PLAIN)(data))
    assert [numbers(clip.values) for clip in clips][:2] == [[0, 2, 3, 4], [4, 4, 5, 6]]


def test_a_window_that_the_film_ends_in_is_filled_up_with_the_last_picture():
    *_, last = ClipWindows(6, 10.0, **PLAIN)(film(frames=30))
    assert (last.start_s, last.end_s) == (pytest.approx(0.6), pytest.approx(1.0))
    assert numbers(last.values) == [18, 21, 24, 27, 27, 27]


@pytest.mark.parametrize("stride", [None, 0.1])
def test_each_picture_is_decoded_once(monkeypatch, stride):
    seen = []
    timed = PyAVFilm._timed
    monkeypatch.setattr(PyAVFilm, "_timed", lambda self: (seen.append(now) or (now, frame) for now, frame in timed(self)))
    clips = list(ClipWindows(5, 10.0, stride, **PLAIN)(film(frames=120)))
    assert len(clips) >= 8 and len(seen) == len(set(seen)) <= 120


@pytest.mark.parametrize(("kind", "codec"), [("mp4", "libx264"), ("mpeg", "mpeg2video"), ("webm", "libvpx-vp9")])
def test_pictures_in_turn_are_those_of_single_looks(kind, codec):
    data, times = film(kind, codec, frames=40), [0.0, 0.01, 0.5, 0.5, 0.9, 1.2]
    in_turn = torch.stack(list(open_film(data).pictures_in_turn(times)))
    single = torch.cat([open_film(data).pictures_at([time]) for time in times])
    assert torch.equal(in_turn, single)
    assert list(open_film(data).pictures_in_turn([])) == []


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (50, 50)])
def test_pictures_are_cut_as_torchvision_cuts_them(size):
    data = film(frames=4, size=size)
    pictures = open_film(data).pictures_at([0.0, 0.1])
    (clip,) = ClipWindows(2, 10.0, resize=40, size=32)(data)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    expected = VideoClassification(crop_size=(32, 32), resize_size=(40, 40), mean=mean, std=std)(pictures)
    assert (clip.values.float() - expected.transpose(0, 1) * 255).abs().max() <= 1


def test_proportions_can_be_kept():
    (clip,) = ClipWindows(1, 10.0, resize=48, size=48, keep_proportions=True)(film(frames=2, size=(96, 48)))
    assert torch.equal(clip.values[0], open_film(film(frames=2, size=(96, 48))).pictures_at([0.0])[0][:, :, 24:72])


def test_films_without_a_clip_and_damaged_ones_are_refused():
    with pytest.raises(ValueError, match=re.escape("a film of 0.333 s has no clip: it takes 50% of 30 pictures at 20 a second.")):
        list(ClipWindows()(film(frames=10)))
    with pytest.raises(ValueError, match="not a film that is known"):
        list(ClipWindows()(b"a letter"))
    with pytest.raises(ValueError, match=r"at most max_seconds 1.0"):
        list(ClipWindows(max_seconds=1.0)(film(frames=60)))


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"num_frames": 0}, "num_frames must be at least 1"),
        ({"frames_per_second": 0.0}, "frames_per_second above 0"),
        ({"stride_s": 0.0}, "stride_s must be above 0"),
        ({"min_share": 0.0}, "min_share must be in (0, 1], got 0.0"),
        ({"size": 300}, "at most resize, got size 300 and resize 256"),
    ],
)
def test_settings_out_of_range_are_refused(own, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        ClipWindows(**own)


def test_settings_come_back_from_an_index_and_decide_the_fingerprint():
    cut = ClipWindows(8, 4.0, stride_s=1.0, **PLAIN)
    again = windows_of({"windows": settings_of(cut)})
    assert again.fingerprint() == cut.fingerprint() != ClipWindows(8, 4.0, stride_s=2.0, **PLAIN).fingerprint()
    with pytest.raises(ValueError, match="not of this package"):
        windows_of({"windows": {"class_path": "os.system", "init_args": {}}})
    with pytest.raises(ValueError, match="cuts no clips"):
        windows_of({"windows": {"class_path": "multimodal.nn.Encoder", "init_args": {"dim": 8, "depth": 1, "num_heads": 1}}})


def test_a_look_at_moments_keeps_proportions():
    pictures = ClipWindows().pictures_of(film(frames=60), [0.1, 1.5], 24)
    assert pictures.shape == (2, 3, 24, 32) and not torch.equal(pictures[0], pictures[1])
