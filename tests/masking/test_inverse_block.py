"""Visible squares of data2vec 2.0 and EAT."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from multimodal.masking import InverseBlockMasking
from multimodal.protocols import Tokens

SEEDS = torch.arange(2000)


def in_squares(visible: torch.Tensor, block: int) -> float:
    """The share of visible cells that lie in a square of which all is visible."""
    cells = visible[:, None].float()
    whole = F.conv2d(cells, torch.ones(1, 1, block, block)) == block**2
    covered = F.conv_transpose2d(whole.float(), torch.ones(1, 1, block, block)) > 0
    return ((covered & visible[:, None]).sum() / visible.sum()).item()


@pytest.mark.parametrize(
    "settings, rows, columns, visible", [({}, 14, 14, 39), ({"block": 5}, 64, 8, 102), ({"mask_ratio": 0.5}, 14, 14, 98)]
)
def test_every_item_shows_the_share_wanted_rounded_down(settings, rows, columns, visible):
    masked = InverseBlockMasking(**settings).draw(SEEDS, rows, columns)
    assert ((~masked).sum((1, 2)) == visible).all()


def test_what_is_visible_lies_in_squares():
    visible = ~InverseBlockMasking().draw(SEEDS, 14, 14)
    assert in_squares(visible, 3) > 0.5
    scattered = torch.rand(2000, 196, generator=torch.Generator().manual_seed(0)).argsort(1).view(2000, 14, 14) < 39
    assert in_squares(scattered, 3) < 0.01
    neighbours = (visible[:, :, 1:] & visible[:, :, :-1]).sum() / visible[:, :, :-1].sum()
    assert neighbours > 0.6  # 0.2 for independent patches


def test_single_squares_stand_whole_around_their_centre():
    """With one square and as much to be shown, all of it is shown: cut off where its centre lies at the border."""
    masking = InverseBlockMasking(mask_ratio=1 - 9.5 / 196, adjust=0.0)
    visible = ~masking.draw(SEEDS, 14, 14)
    whole = F.conv2d(visible[:, None].float(), torch.ones(1, 1, 3, 3)).amax((1, 2, 3)) == 9
    assert (visible.sum((1, 2)) == 9).all()
    assert whole.float().mean().item() == pytest.approx((12 / 14) ** 2, abs=0.03)


def test_all_places_are_seen_but_the_border_less():
    share = (~InverseBlockMasking().draw(torch.arange(20_000), 14, 14)).float().mean(0)
    assert share.min() > 0.1 and share[3:-3, 3:-3].std() < 0.01
    assert share[0, 0] < share[7, 7]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 20), st.integers(1, 20), st.floats(0.05, 0.95), st.integers(1, 6), st.integers(0, 2**62))
def test_any_grid_shows_something_and_hides_something(rows, columns, ratio, block, seed):
    masked = InverseBlockMasking(ratio, block).draw(torch.arange(3) + seed, rows, columns)
    visible = (~masked).sum((1, 2)).tolist()
    assert len(set(visible)) == 1 and visible[0] == max(1, int(rows * columns * (1 - ratio) + 1e-6))
    assert visible[0] < rows * columns or rows * columns == 1


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 5), st.integers(0, 2**62))
def test_the_mask_of_an_item_does_not_depend_on_the_batch(index, seed):
    seeds = torch.arange(6) * 7919 + seed
    together = InverseBlockMasking().draw(seeds, 8, 9)[index]
    assert torch.equal(together, InverseBlockMasking().draw(seeds[index : index + 1], 8, 9)[0])


def test_sequences_are_refused():
    tokens = Tokens(torch.zeros(4), torch.tensor([4]), torch.zeros(4, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="inverse block masking needs a grid of rows and columns, got None: use RandomMasking"):
        InverseBlockMasking()(tokens, torch.tensor([0]))


@pytest.mark.parametrize("settings", [{"mask_ratio": 1.0}, {"mask_ratio": 0.0}, {"block": 0}, {"adjust": -0.1}])
def test_settings_are_checked(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be"):
        InverseBlockMasking(**settings)
