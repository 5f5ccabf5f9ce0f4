"""Tubes: the same places at all times, an exact number of them, and independence of the batch."""

import pytest
import torch

from multimodal.masking import TubeMasking
from multimodal.protocols import Tokens


def clips(count: int, *grid: int) -> Tokens:
    length = int(torch.tensor(grid).prod())
    return Tokens(
        torch.zeros(count * length), torch.full((count,), length), torch.zeros(count * length, len(grid), dtype=torch.int64), grid=grid
    )


def test_videomae_sees_160_of_1568_cubes():
    masked = TubeMasking()(clips(3, 8, 14, 14), torch.arange(3)).view(3, 8, 196)
    assert (~masked).sum((1, 2)).tolist() == [160] * 3 and masked.sum(2).eq(176).all()
    assert torch.equal(masked, masked[:, :1].expand_as(masked))


def test_items_differ_and_do_not_depend_on_the_batch():
    whole = TubeMasking(0.5)(clips(4, 2, 6, 6), torch.tensor([3, 1, 4, 1])).view(4, 2, 36)
    alone = TubeMasking(0.5)(clips(1, 2, 6, 6), torch.tensor([4])).view(2, 36)
    assert torch.equal(whole[2], alone) and torch.equal(whole[1], whole[3]) and not torch.equal(whole[0], whole[1])


def test_all_places_are_hidden_equally_often():
    masked = TubeMasking(0.25)(clips(4000, 1, 4, 4), torch.arange(4000)).view(4000, 16).float().mean(0)
    assert (masked - 0.25).abs().max() < 0.03


@pytest.mark.parametrize(("ratio", "places", "hidden"), [(0.9, 196, 176), (0.75, 10, 7), (0.01, 10, 1), (0.99, 3, 2)])
def test_the_number_is_rounded_down(ratio, places, hidden):
    assert TubeMasking(ratio)(clips(2, 3, places), torch.arange(2)).view(2, 3, places).sum(2).eq(hidden).all()


def test_what_is_no_grid_is_refused():
    tokens = Tokens(torch.zeros(4), torch.tensor([4]), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="needs a grid of times and places, got None"):
        TubeMasking()(tokens, torch.tensor([0]))
    with pytest.raises(ValueError, match=r"must be in \(0, 1\), got 1"):
        TubeMasking(1.0)
