"""Blocks of BEiT, and those of BEiT v2 that are filled up."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.masking import BlockwiseMasking
from multimodal.protocols import Tokens


def test_exact_blocks_are_those_of_beit_and_single_tokens():
    seeds = torch.arange(20_000)
    blocks, exact = BlockwiseMasking().draw(seeds, 14, 14), BlockwiseMasking(exact=True).draw(seeds, 14, 14)
    assert (exact.sum((1, 2)) == 75).all()
    assert not (blocks & ~exact).any()
    added = (exact & ~blocks).sum((1, 2))
    complete = blocks.sum((1, 2)) == 75
    assert (added[complete] == 0).all() and complete.float().mean().item() == pytest.approx(0.666, abs=0.012)
    assert added.max() <= 20 and (added[~complete] > 0).all()


def test_what_is_filled_up_lies_anywhere():
    """Blocks seldom reach the corners; the tokens that fill up are drawn from all that are left."""
    seeds = torch.arange(20_000)
    masking = BlockwiseMasking(exact=True)
    blocks = BlockwiseMasking().draw(seeds, 14, 14)
    added = masking.draw(seeds, 14, 14) & ~blocks
    missing = (75 - blocks.sum((1, 2))).float()
    expected = (missing[:, None, None] / (~blocks).sum((1, 2))[:, None, None] * ~blocks).sum(0)  # of a uniform draw
    assert ((added.sum(0) - expected) / expected.sqrt()).abs().max() < 5


@settings(deadline=None, max_examples=30)
@given(st.integers(3, 20), st.integers(3, 20), st.floats(0.1, 0.8), st.integers(0, 2**62))
def test_exact_blocks_hide_the_same_number_on_any_grid(rows, columns, ratio, seed):
    masked = BlockwiseMasking(ratio, min_block=4, exact=True).draw(torch.arange(4) + seed, rows, columns)
    assert (masked.sum((1, 2)) == round(ratio * rows * columns)).all()


def test_exact_blocks_do_not_depend_on_the_batch():
    seeds = torch.arange(50) * 7919
    masking = BlockwiseMasking(exact=True)
    tokens = Tokens(torch.zeros(196), torch.tensor([196]), torch.zeros(196, 2, dtype=torch.int64), grid=(14, 14))
    together = masking.draw(seeds, 14, 14)
    assert all(torch.equal(masking(tokens, seed[None]).view(14, 14), own) for seed, own in zip(seeds[:10], together, strict=False))
