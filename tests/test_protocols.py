"""Tokens: parts of them, and without their places."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.protocols import Tokens

LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=6).filter(any)


def tokens_of(lengths: list[int]) -> Tokens:
    total = sum(lengths)
    return Tokens(torch.arange(total) * 10, torch.tensor(lengths), torch.arange(2 * total).view(total, 2), grid=None)


@settings(deadline=None, max_examples=60)
@given(LENGTHS, st.integers(0, 2**31))
def test_a_selection_keeps_order_items_and_places(lengths, seed):
    tokens = tokens_of(lengths)
    kept = torch.rand(len(tokens.inputs), generator=torch.Generator().manual_seed(seed)) < 0.5
    chosen = tokens.select(kept)
    assert torch.equal(chosen.inputs, tokens.inputs[kept]) and torch.equal(chosen.coordinates, tokens.coordinates[kept])
    assert torch.equal(chosen.item, tokens.item[kept]) and len(chosen.lengths) == len(lengths)
    assert chosen.lengths.sum() == kept.sum() and chosen.lengths.dtype == torch.int64
    assert chosen.grid is None and chosen.unplaced is None


def test_a_selection_of_a_grid_is_no_grid():
    tokens = Tokens(torch.zeros(4), torch.tensor([4]), torch.zeros(4, 2, dtype=torch.int64), grid=(2, 2))
    assert tokens.select(torch.tensor([True, False, True, True])).grid is None


def test_what_has_no_place_has_none_after_a_selection():
    tokens = tokens_of([3, 2])
    unplaced = torch.tensor([True, False, False, True, False])
    hidden = tokens.without_places(unplaced)
    assert hidden.coordinates.tolist() == [[-1, -1], [2, 3], [4, 5], [-1, -1], [8, 9]]
    assert tokens.unplaced is None and tokens.coordinates[0].tolist() == [0, 1]  # the tokens themselves are as they were
    chosen = hidden.select(torch.tensor([True, True, False, True, True]))
    assert chosen.unplaced.tolist() == [True, False, True, False]
