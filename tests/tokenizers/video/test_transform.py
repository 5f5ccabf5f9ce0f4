"""Clips of a fixed shape: where in the film and in the picture they lie."""

import pytest
import torch

from multimodal.tokenizers.video import CornerCrop, VideoTransform
from multimodal.tokenizers.video import transform as transform_module
from multimodal.tokenizers.video.decode import Film, FilmHeader
from tests.tokenizers.zoo import film


class CountingFilm(Film):
    """Twenty pictures a second; red is the time in tenths of a second, green grows to the right, blue downwards."""

    def __init__(self, seconds: float, height: int = 40, width: int = 60) -> None:
        self.header = FilmHeader(width, height, seconds)
        self.asked: list[int] = []

    def pictures_at(self, times_s):
        self.asked.append(len(times_s))
        clip = torch.zeros(len(times_s), 3, self.header.height, self.header.width, dtype=torch.uint8)
        for picture, time in zip(clip, times_s, strict=True):
            picture[0] = round(10 * time)
            picture[1] = torch.arange(self.header.width)
            picture[2] = torch.arange(self.header.height)[:, None]
        return clip


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_evaluation_takes_the_middle_and_draws_nothing():
    generator = draw()
    state = generator.get_state()
    values = VideoTransform(size=40, num_frames=4, seconds=2.0)(CountingFilm(10.0), generator, train=False).values
    assert values.shape == (4, 3, 40, 40) and values.dtype == torch.uint8
    assert values[:, 0, 0, 0].tolist() == [40, 45, 50, 55]
    assert values[0, 1, 0].tolist() == list(range(10, 50)) and values[0, 2, :, 0].tolist() == list(range(40))
    assert torch.equal(generator.get_state(), state)


def test_training_clips_reach_every_time_and_place():
    transform, generator = VideoTransform(size=40, num_frames=4, seconds=2.0, flip=0.5), draw()
    clips = torch.stack([transform(CountingFilm(5.0), generator, train=True).values for _ in range(200)])
    starts = clips[:, 0, 0, 0, 0]
    assert (clips[:, 1:, 0, 0, 0].int() - clips[:, :-1, 0, 0, 0].int() - 5).abs().max() <= 1
    assert starts.min() <= 1 and starts.max() in (29, 30)
    edges = clips[:, 0, 1, 0][:, [0, -1]].tolist()
    assert min(min(edge) for edge in edges) == 0 and max(max(edge) for edge in edges) == 59
    flipped = sum(left > right for left, right in edges) / len(edges)
    assert flipped == pytest.approx(0.5, abs=0.1)


def test_a_short_film_is_spread_over_the_clip():
    values = VideoTransform(size=40, num_frames=4, seconds=2.0)(CountingFilm(1.0), draw(), train=True).values
    assert values[:, 0, 0, 0].tolist() == [0, 2, 5, 8]


def test_clips_may_be_told_by_their_rate():
    transform = VideoTransform(size=40, num_frames=4, frames_per_second=2.0)
    assert transform.seconds == 2.0
    assert transform(CountingFilm(10.0), draw(), train=False).values[:, 0, 0, 0].tolist() == [40, 45, 50, 55]
    assert VideoTransform(num_frames=16, frames_per_second=7.5).seconds == pytest.approx(16 / 7.5)


def test_views_go_from_start_to_end_and_from_side_to_side():
    transform, generator = VideoTransform(size=40, num_frames=4, seconds=2.0, num_clips=5, num_crops=3), draw()
    state = generator.get_state()
    values = transform(CountingFilm(10.0), generator, train=False).values
    assert transform.num_views == 15 and values.shape == (15, 4, 3, 40, 40)
    views = values.view(5, 3, 4, 3, 40, 40)
    assert views[:, 0, 0, 0, 0, 0].tolist() == [0, 20, 40, 60, 80]
    assert (views[:, :, :, 0] == views[:, :1, :, 0]).all()  # the crops of a clip are of the same times
    assert views[0, :, 0, 1, 0, 0].tolist() == [0, 10, 20] and views[0, :, 0, 1, 0, -1].tolist() == [39, 49, 59]
    assert torch.equal(generator.get_state(), state)
    middle = VideoTransform(size=40, num_frames=4, seconds=2.0)(CountingFilm(10.0), generator, train=False).values
    assert torch.equal(views[2, 1], middle)
    assert transform(CountingFilm(10.0), generator, train=True).values.shape == (4, 3, 40, 40)


def test_views_of_upright_films_go_from_top_to_bottom():
    values = VideoTransform(size=40, num_frames=2, num_crops=3)(CountingFilm(10.0, 60, 40), draw(), train=False).values
    assert values[:, 0, 2, 0, 0].tolist() == [0, 10, 20]


def test_grey_clips_have_one_channel():
    colour, grey = (VideoTransform(size=40, num_frames=2, channels=count) for count in (3, 1))
    clip = colour(CountingFilm(3.0), draw(), train=False).values.double()
    made = grey(CountingFilm(3.0), draw(), train=False).values
    assert made.shape == (2, 1, 40, 40) and made.dtype == torch.uint8
    bright = 0.299 * clip[:, 0] + 0.587 * clip[:, 1] + 0.114 * clip[:, 2]
    assert (made[:, 0] - bright).abs().max() <= 0.5001


def test_a_crop_is_the_same_in_all_pictures():
    transform, generator = VideoTransform(size=20, num_frames=4, crop=CornerCrop((0.5,)), flip=0.0), draw()
    clips = torch.stack([transform(CountingFilm(5.0), generator, train=True).values for _ in range(60)])
    assert (clips[:, :, 1:] == clips[:, :1, 1:]).all()
    assert clips[:, 0, 1, 0, 0].unique().tolist() == [0, 10, 20, 30, 40] and clips[:, 0, 2, 0, 0].unique().tolist() == [0, 5, 10, 15, 20]


def test_large_pictures_are_held_a_few_at_a_time(monkeypatch):
    transform, small, large = VideoTransform(size=8, num_frames=6), CountingFilm(3.0), CountingFilm(3.0)
    expected = transform(small, draw(), train=True).values
    monkeypatch.setattr(transform_module, "DECODED_VALUES", 4 * 3 * 40 * 60)
    assert torch.equal(transform(large, draw(), train=True).values, expected)
    assert (small.asked, large.asked) == ([6], [4, 2])


def test_files_become_clips():
    transform = VideoTransform(size=32, num_frames=3, seconds=0.3, flip=0.0)
    item = transform(transform.decode(film(frames=45, size=(64, 64))), draw(), train=False)
    assert not item.ragged and item.values.shape == (3, 3, 32, 32) and item.values.is_contiguous()
    bits = item.values[:, :, 16:].float().mean((1, 2)).view(3, 8, 4).mean(-1) > 128
    assert (bits * 2 ** torch.arange(8)).sum(1).tolist() == [18, 21, 24]


def test_short_films_are_refused():
    with pytest.raises(ValueError, match=r"a film of 0.100 s; at least min_seconds 0.5"):
        VideoTransform(min_seconds=0.5).decode(film(frames=3))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"size": 0}, "size"),
        ({"num_frames": 0}, "num_frames"),
        ({"seconds": 0.0}, "seconds"),
        ({"frames_per_second": -1.0}, "frames_per_second must be above 0, got -1.0"),
        ({"seconds": 2.0, "frames_per_second": 8.0}, "say the same, set one of them; got 2.0 and 8.0"),
        ({"num_clips": 0}, "num_clips"),
        ({"flip": 2.0}, "flip"),
        ({"min_seconds": -1.0}, "min_s"),
    ],
)
def test_impossible_settings_are_refused(settings, name):
    with pytest.raises(ValueError, match=name):
        VideoTransform(**settings)


def test_pictures_of_two_channels_are_refused(unchecked):
    with pytest.raises(ValueError, match=r"channels must be 1 \(grey\) or 3 \(colour\), got 2"):
        VideoTransform(channels=2)
