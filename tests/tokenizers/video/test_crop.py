"""Which parts of pictures training shows: their shapes, places and bounds."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.tokenizers.video import CornerCrop, RandomResizedCrop, RandomSquare
from multimodal.tokenizers.video.crop import PLACES, Window, cut, square_at


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([RandomSquare(), RandomResizedCrop(), RandomResizedCrop((0.01, 1.0), (0.1, 10.0)), CornerCrop()]),
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(0, 2**31),
)
def test_crops_lie_in_the_picture(crop, height, width, seed):
    top, left, rows, columns = crop(height, width, draw(seed))
    assert 0 <= top <= top + rows <= height and 0 <= left <= left + columns <= width and rows and columns


def test_a_random_square_is_the_largest_and_reaches_both_ends():
    generator = draw()
    windows = [RandomSquare()(40, 60, generator) for _ in range(300)]
    assert {(window.height, window.width, window.top) for window in windows} == {(40, 40, 0)}
    assert {window.left for window in windows} == set(range(21))


def test_areas_and_shapes_of_a_random_rectangle_fill_their_ranges():
    generator, crop = draw(), RandomResizedCrop((0.05, 0.2), (0.5, 2.0))  # of which all fit
    windows = [crop(400, 600, generator) for _ in range(500)]
    areas = [window.height * window.width / (400 * 600) for window in windows]
    shapes = [window.width / window.height for window in windows]
    assert 0.049 < min(areas) < 0.06 and 0.19 < max(areas) < 0.201
    assert 0.49 < min(shapes) < 0.55 and 1.8 < max(shapes) < 2.02
    assert sum(shape < 1 for shape in shapes) / 500 == pytest.approx(0.5, abs=0.08)  # as likely upright as lying


def test_a_rectangle_that_never_fits_is_the_largest_in_the_middle():
    assert RandomResizedCrop((1.0, 1.0), (1.0, 1.0))(40, 100, draw()) == Window(0, 30, 40, 40)
    assert RandomResizedCrop((1.0, 1.0), (2.0, 2.0))(100, 40, draw()) == Window(40, 0, 20, 40)


def test_corner_crops_are_videomaes():
    """Sides from 1, .875, .75 and .66 of the shorter side, at most one step apart, at thirteen places."""
    generator = draw()
    windows = {CornerCrop()(100, 200, generator) for _ in range(5000)}
    assert {(window.height, window.width) for window in windows} == {
        (100, 100), (100, 87), (87, 100), (87, 87), (87, 75), (75, 87), (75, 75), (75, 66), (66, 75), (66, 66)
    }  # fmt: skip
    smallest = {(window.top, window.left) for window in windows if (window.height, window.width) == (66, 66)}
    assert smallest == {(8 * down, 33 * right) for down, right in PLACES} and len(smallest) == 13


def test_windows_are_resized_to_squares():
    pictures = torch.zeros(2, 3, 10, 20, dtype=torch.uint8)
    pictures[..., 2:6, 4:12] = 200
    made = cut(pictures, Window(2, 4, 4, 8), 6)
    assert made.shape == (2, 3, 6, 6) and (made == 200).all()
    assert square_at(10, 20, 1.0, 1.0) == Window(0, 10, 10, 10) and square_at(20, 10, 0.5, 0.5) == Window(5, 0, 10, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomResizedCrop((0.0, 1.0)), "scale must be an ascending range"),
        (lambda: RandomResizedCrop((0.5, 0.4)), "scale must be an ascending range"),
        (lambda: RandomResizedCrop(ratio=(2.0, 1.0)), "ratio must be an ascending range"),
        (lambda: CornerCrop(()), "scales must be shares"),
        (lambda: CornerCrop((1.1,)), "scales must be shares"),
    ],
)
def test_impossible_crops_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_stretches_stay_small():
    generator = draw()
    windows = [CornerCrop()(224, 298, generator) for _ in range(500)]
    assert max(abs(math.log(window.width / window.height)) for window in windows) < math.log(1.18)
