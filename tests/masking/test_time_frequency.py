"""Rows and columns are hidden as a whole, an exact number of each, and a function of the item's seed alone."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from multimodal.masking import TimeFrequencyMasking
from multimodal.protocols import Tokens


def grids(*rows: int, columns: int = 8) -> Tokens:
    places = torch.cat([torch.cartesian_prod(torch.arange(r), torch.arange(columns)) for r in rows])
    return Tokens(torch.zeros(len(places)), torch.tensor([r * columns for r in rows]), places)


def test_audiomae_sees_51_of_64_times_and_6_of_8_bands():
    masked = TimeFrequencyMasking()(grids(64, 64, 64), torch.arange(3)).view(3, 64, 8)
    visible = ~masked
    assert visible.any(2).sum(1).tolist() == [51] * 3 and visible.any(1).sum(1).tolist() == [6] * 3
    assert visible.sum((1, 2)).tolist() == [51 * 6] * 3
    assert torch.equal(visible, visible.any(2, keepdim=True) & visible.any(1, keepdim=True))


@settings(deadline=None, max_examples=40)
@example([6], 1, 2e-7, 0.5)  # in float32 nothing would be hidden
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(1, 9), st.floats(0.0, 0.9), st.floats(0.05, 0.9))
def test_items_of_unequal_numbers_of_rows_do_not_depend_on_the_batch(rows, columns, time, frequency):
    masking, seed = TimeFrequencyMasking(time, frequency), torch.arange(len(rows)) * 7
    together = masking(grids(*rows, columns=columns), seed).split([r * columns for r in rows])
    for i, r in enumerate(rows):
        assert torch.equal(together[i], masking(grids(r, columns=columns), seed[i : i + 1]))
        visible = ~together[i].view(r, columns)
        kept = max(1, int(r * (1 - time) + 1e-6)) * max(1, int(columns * (1 - frequency) + 1e-6))
        assert visible.sum() == kept == visible.any(1).sum() * visible.any(0).sum()


def test_rows_and_columns_are_drawn_apart_and_alike():
    masked = TimeFrequencyMasking(0.5, 0.5)(grids(*[8] * 4000), torch.arange(4000)).view(4000, 8, 8)
    rows, columns = masked.all(2), masked.all(1)
    assert (rows.float().mean(0) - 0.5).abs().max() < 0.04 and (columns.float().mean(0) - 0.5).abs().max() < 0.04
    assert (rows == columns).all(1).float().mean() < 0.05


def test_what_has_no_rows_and_columns_is_refused():
    with pytest.raises(ValueError, match="a row and a column, got 1 of torch"):
        TimeFrequencyMasking()(Tokens(torch.zeros(4), torch.tensor([4]), torch.zeros(4, 1, dtype=torch.int64)), torch.tensor([0]))
    for ratios in ((1.0, 0.2), (-0.1, 0.2), (0.0, 0.0)):
        with pytest.raises(ValueError, match=r"must be in \[0, 1\), and not both 0"):
            TimeFrequencyMasking(*ratios)
