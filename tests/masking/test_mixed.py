"""Items that share the places of one grid."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.masking import MixedMasking
from multimodal.protocols import Tokens


def grids(count: int, rows: int, columns: int) -> Tokens:
    total = count * rows * columns
    lengths = torch.full((count,), rows * columns)
    return Tokens(torch.arange(total), lengths, torch.zeros(total, 2, dtype=torch.int64), grid=(rows, columns))


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 6), st.integers(1, 14), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**62))
def test_each_place_is_seen_of_one_item_of_a_group_and_shares_are_equal_to_one(mixed, count, rows, columns, seed):
    masked = MixedMasking(mixed)(grids(count, rows, columns), torch.arange(count) + seed).view(count, -1)
    for start in range(0, count, mixed):
        visible = ~masked[start : start + mixed]
        seen = visible.sum(0)
        assert (seen == 1).all() if len(visible) == mixed else (seen <= 1).all()
        assert all(int(own) in (rows * columns // mixed, -(-rows * columns // mixed)) for own in visible.sum(1))


def test_a_group_is_a_function_of_the_seed_of_its_first_item():
    masking, tokens = MixedMasking(3), grids(6, 4, 4)
    one = masking(tokens, torch.tensor([7, 1, 2, 8, 3, 4])).view(6, 16)
    other = masking(tokens, torch.tensor([8, 5, 6, 7, 9, 9])).view(6, 16)
    assert torch.equal(one[:3], other[3:]) and torch.equal(one[3:], other[:3])
    assert not torch.equal(one[:3], one[3:])


def test_all_items_are_seen_everywhere_in_the_long_run():
    visible = ~MixedMasking(4)(grids(8000, 3, 4), torch.arange(8000)).view(2000, 4, 12)
    assert (visible.float().mean(0) - 0.25).abs().max() < 0.04


def test_an_incomplete_group_sees_what_it_would_see_in_a_whole_one():
    masking = MixedMasking(4)
    whole, part = masking(grids(8, 4, 4), torch.arange(8)), masking(grids(6, 4, 4), torch.arange(6))
    assert torch.equal(whole.view(8, 16)[:6], part.view(6, 16))
    assert (~part.view(6, 16)).sum(1).tolist() == [4] * 6


def test_no_items_hide_nothing():
    assert MixedMasking(2)(grids(0, 4, 4), torch.zeros(0, dtype=torch.int64)).tolist() == []


def test_sequences_and_single_items_are_refused():
    sequences = Tokens(torch.zeros(4), torch.tensor([4]), torch.zeros(4, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="mixed place by place, which needs grids: use RandomMasking"):
        MixedMasking()(sequences, torch.tensor([0]))
    with pytest.raises(ValueError, match="num_mixed must be at least 2, got 1"):
        MixedMasking(1)
