"""How many stay hidden, by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multimodal.filling import still_hidden


def left(total: int, steps: int, schedule: str) -> list[int]:
    return [int(still_hidden(torch.tensor([total]), step, steps, schedule)) for step in range(1, steps + 1)]


def test_numbers_by_hand():
    assert left(10, 5, "linear") == [8, 6, 4, 2, 0]
    assert left(100, 4, "cosine") == [92, 70, 38, 0], "100 * cos(pi / 8) = 92.4, cos(pi / 4) = 70.7, cos(3 pi / 8) = 38.3"
    assert left(7, 1, "cosine") == [0]


def test_each_item_by_its_own_number():
    assert still_hidden(torch.tensor([0, 1, 4, 10]), 1, 2, "linear").tolist() == [0, 0, 2, 5]


@given(st.integers(0, 500), st.integers(1, 40), st.sampled_from(["cosine", "linear"]))
def test_they_fall_to_nothing(total, steps, schedule):
    found = left(total, steps, schedule)
    assert found == sorted(found, reverse=True) and found[-1] == 0 and found[0] <= total


@pytest.mark.parametrize(("schedule", "kept_first"), [("cosine", 1), ("linear", 12)])
def test_the_cosine_keeps_few_at_first(schedule, kept_first):
    assert 100 - left(100, 8, schedule)[0] == pytest.approx(kept_first, abs=1)
