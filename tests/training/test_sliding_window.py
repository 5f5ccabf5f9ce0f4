"""Windows cover an image, and what they say of a pixel is averaged."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from multimodal.training import SlidingWindow
from multimodal.training.sliding_window import at_size


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(4, 20), st.data())
def test_windows_cover_a_side_and_stay_inside(side, size, data):
    window = SlidingWindow(size, data.draw(st.integers(1, size)))
    starts = window.starts(side)
    covered = {place for start in starts for place in range(start, start + size)}
    assert covered >= set(range(side)) and covered <= set(range(max(side, size)))
    assert len(set(starts)) == len(starts)


def test_windows_are_those_of_mmseg():
    # mmseg: grids = max(side - crop + stride - 1, 0) // stride + 1, the last moved back to the edge
    assert SlidingWindow(512, 341).starts(683) == [0, 171]
    assert SlidingWindow(512, 341).starts(853) == [0, 341]
    assert SlidingWindow(512, 341).starts(854) == [0, 341, 342]
    assert SlidingWindow(512, 341).starts(512) == [0]
    assert SlidingWindow(512).stride == 341


@pytest.mark.parametrize(("height", "width"), [(8, 8), (13, 21), (5, 30), (3, 2)])
def test_logits_of_pixels_alone_do_not_notice_the_window(height, width):
    values = torch.randint(256, (2, 1, height, width), dtype=torch.uint8)

    def logits_of(part):
        assert part.shape[2:] == (8, 8)
        return torch.cat([part.float(), 255 - part.float()], 1)

    found = SlidingWindow(8, 3)(values, logits_of)
    torch.testing.assert_close(found, torch.cat([values.float(), 255 - values.float()], 1))


def test_overlaps_are_averaged():
    calls = iter([0.0, 1.0])
    found = SlidingWindow(4, 2)(torch.zeros(1, 1, 4, 6), lambda part: torch.full((1, 1, 4, 4), next(calls)))
    assert found[0, 0, 0].tolist() == [0, 0, 0.5, 0.5, 1, 1]


def test_small_logits_are_resized_to_the_window():
    coarse = torch.randn(1, 2, 2, 2)
    expected = F.interpolate(coarse, size=(8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(SlidingWindow(8)(torch.zeros(1, 3, 8, 8), lambda part: coarse), expected)
    assert at_size(coarse.bfloat16(), (3, 3)).dtype == torch.float32


def test_what_surrounds_a_small_image_is_grey():
    seen = []
    SlidingWindow(4)(torch.zeros(1, 1, 2, 4, dtype=torch.uint8), lambda part: seen.append(part) or part)
    assert seen[0][0, 0].tolist() == [[0] * 4] * 2 + [[128] * 4] * 2


@pytest.mark.parametrize("stride", [0, 9])
def test_the_stride_is_checked(stride):
    with pytest.raises(ValueError, match=f"stride must be from 1 to the window's size, 8; got {stride}"):
        SlidingWindow(8, stride)
