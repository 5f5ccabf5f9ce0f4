"""Windows over long texts: all words, each told once, and no window too long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.tokenizers.text.windows import check_sizes, cut_windows


@given(st.lists(st.integers(1, 6), max_size=60), st.integers(6, 20), st.data())
def test_every_word_is_told_once_and_windows_fit(lengths, room, data):
    overlap = data.draw(st.integers(0, room - 1))
    windows = cut_windows(lengths, room, overlap)
    told = [word for window in windows for word in range(window.own_first, window.own_last)]
    assert told == list(range(len(lengths)))
    for window in windows:
        assert window.first <= window.own_first <= window.own_last <= window.last
        assert sum(lengths[window.first : window.last]) <= room
    for earlier, later in zip(windows, windows[1:], strict=False):
        assert earlier.first < later.first <= earlier.last < later.last
        assert sum(lengths[later.first : earlier.last]) <= overlap


def test_windows_of_single_tokens_share_the_overlap_and_are_told_by_the_nearer_one():
    assert cut_windows([1] * 10, 6, 2) == [(0, 6, 0, 5), (4, 10, 5, 10)]
    assert cut_windows([1] * 10, 5, 0) == [(0, 5, 0, 5), (5, 10, 5, 10)]
    assert cut_windows([], 5, 2) == [(0, 0, 0, 0)]


def test_sizes_without_room_are_refused():
    with pytest.raises(ValueError, match="max_tokens must be above 2, which are not words of the text, got 2"):
        check_sizes(2, 0, 2)
    with pytest.raises(ValueError, match=r"overlap must be in \[0, 8\), as windows have that many tokens of the text, got 8"):
        check_sizes(10, 8, 2)
