"""Whole times are hidden, as many as said, never the first or the last."""

import pytest
import torch

from multimodal.masking import FrameMasking
from multimodal.protocols import Tokens
from tests.masking.test_tube import clips


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_whole_times_are_hidden(count):
    masked = FrameMasking(count)(clips(40, 8, 2, 3), torch.arange(40)).view(40, 8, 6)
    assert torch.equal(masked, masked[:, :, :1].expand_as(masked))
    assert masked[:, :, 0].sum(1).eq(count).all() and not masked[:, [0, 7]].any()


def test_all_inner_times_are_hidden_equally_often():
    share = FrameMasking(2)(clips(4000, 6, 1, 1), torch.arange(4000)).view(4000, 6).float().mean(0)
    assert share[[0, 5]].eq(0).all() and (share[1:5] - 0.5).abs().max() < 0.03


def test_items_do_not_depend_on_the_batch():
    whole = FrameMasking()(clips(4, 8, 2, 2), torch.tensor([3, 1, 4, 1])).view(4, 32)
    assert torch.equal(whole[2], FrameMasking()(clips(1, 8, 2, 2), torch.tensor([4]))) and torch.equal(whole[1], whole[3])


def test_what_cannot_be_hidden_is_refused():
    with pytest.raises(ValueError, match="num_times 3 of 4 times cannot be hidden: the first and the last stay"):
        FrameMasking(3)(clips(1, 4, 2, 2), torch.tensor([0]))
    with pytest.raises(ValueError, match="needs a grid of times and places, got None"):
        FrameMasking()(Tokens(torch.zeros(4), torch.tensor([4]), torch.zeros(4, 1)), torch.tensor([0]))
    with pytest.raises(ValueError, match="num_times must be at least 1, got 0"):
        FrameMasking(0)
