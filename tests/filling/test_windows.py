"""Each token is told once, where it has most beside it."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from multimodal.filling import SlidingWindows


def told(lengths: list[int], size: int | None, stride: int | None = None) -> list[list[int]]:
    windows = SlidingWindows.of(torch.tensor(lengths), size, stride)
    parts = zip(windows.source.split(windows.lengths.tolist()), windows.own.split(windows.lengths.tolist()), strict=True)
    return [source[own].tolist() for source, own in parts]


def test_windows_by_hand():
    windows = SlidingWindows.of(torch.tensor([10, 3]), 4)
    assert [x.tolist() for x in windows.source.split(windows.lengths.tolist())] == [
        [0, 1, 2, 3],
        [2, 3, 4, 5],
        [4, 5, 6, 7],
        [6, 7, 8, 9],
        [10, 11, 12],
    ]
    assert windows.item.tolist() == [0, 0, 0, 0, 1]
    assert told([10, 3], 4) == [[0, 1, 2], [3, 4], [5, 6], [7, 8, 9], [10, 11, 12]]


def test_the_last_window_ends_with_the_item():
    assert told([7], 4, 4) == [[0, 1, 2], [3, 4, 5, 6]], "the second is moved back to 3..6, and they change over at 3.5"


def test_whole_items_are_one_window_each():
    assert told([4, 1, 6], None) == [[0, 1, 2, 3], [4], [5, 6, 7, 8, 9, 10]]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(2, 20), st.data())
def test_each_token_is_told_once_in_order_and_inside(lengths, size, data):
    stride = data.draw(st.none() | st.integers(1, size))
    windows = SlidingWindows.of(torch.tensor(lengths), size, stride)
    assert windows.source[windows.own].tolist() == list(range(sum(lengths)))
    assert (windows.lengths <= size).all()
    item = torch.repeat_interleave(torch.tensor(lengths))
    assert torch.equal(item[windows.source], torch.repeat_interleave(windows.item, windows.lengths))


@given(st.integers(21, 200), st.sampled_from([4, 10, 20]))
def test_tokens_have_a_quarter_of_a_window_on_both_sides(length, size):
    """But for those at the ends of an item."""
    windows = SlidingWindows.of(torch.tensor([length]), size)
    for source, own in zip(windows.source.split(windows.lengths.tolist()), windows.own.split(windows.lengths.tolist()), strict=True):
        first, last = source[own][0] - source[0], source[-1] - source[own][-1]
        assert first >= size // 4 or source[0] == 0
        assert last >= size // 4 - 1 or source[-1] == length - 1


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.none() | st.integers(2, 12), st.data())
def test_windows_that_tell_nothing_wanted_are_left_out(lengths, size, data):
    wanted = torch.tensor(data.draw(st.lists(st.booleans(), min_size=sum(lengths), max_size=sum(lengths))))
    every = SlidingWindows.of(torch.tensor(lengths), size)
    found = every.telling(wanted)
    assert torch.equal(found.source[found.own], wanted.nonzero()[:, 0])
    parts = zip(every.source.split(every.lengths.tolist()), every.own.split(every.lengths.tolist()), strict=True)
    kept = [source.tolist() for source, own in parts if wanted[source[own]].any()]
    assert [source.tolist() for source in found.source.split(found.lengths.tolist())] == kept or not kept
    assert len(found.item) == len(found.lengths) == len(kept)
