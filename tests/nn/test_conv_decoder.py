"""The decoder of convolutions, against a computation item by item with plain torch."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal.nn import ConvDecoder


def shaken_decoder(dim: int = 12, **settings) -> ConvDecoder:
    torch.manual_seed(0)
    decoder = ConvDecoder(dim, **{"width": 8, "depth": 3, "groups": 4, **settings}).eval()
    for parameter in decoder.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return decoder


def places(*grids: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The item of each token of full grids, and its coordinates."""
    own = [torch.cartesian_prod(torch.arange(rows), torch.arange(columns)) for rows, columns in grids]
    return torch.repeat_interleave(torch.tensor([len(x) for x in own])), torch.cat(own)


def by_hand(decoder: ConvDecoder, tokens: Tensor, rows: int, columns: int) -> Tensor:
    """All tokens of one item, ``(rows * columns, d)``; the convolution as a sum over its nine places."""
    x = tokens.view(rows, columns, -1)
    for layer in decoder.layers:
        weight = layer.weight.unflatten(0, (layer.groups, -1))  # g o c 3 3
        padded = F.pad(x.unflatten(2, (layer.groups, -1)), (0, 0, 0, 0, 1, 1, 1, 1))  # h+2 w+2 g c
        made = sum(
            torch.einsum("hwgc,goc->hwgo", padded[i : i + rows, j : j + columns], weight[..., i, j]) for i in range(3) for j in range(3)
        )
        made = made.flatten(2) + layer.bias
        made = (made - made.mean(-1, keepdim=True)) / (made.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        made = made * 0.5 * (1 + torch.erf(made / 2**0.5))
        x = made + x if made.shape == x.shape else made
    return x.flatten(0, 1)


@pytest.mark.parametrize("dim", [12, 8])  # another width than the decoder's: the first layer adds nothing
def test_items_of_unequal_grids_are_those_of_a_sum_over_neighbours(dim):
    decoder, grids = shaken_decoder(dim), ((5, 3), (2, 3), (4, 2))
    item, coordinates = places(*grids)
    visible = torch.rand(len(item)) < 0.4
    seen = torch.randn(int(visible.sum()), dim)
    made = decoder(seen, visible, ~visible, item, coordinates, torch.randn(3, dim))
    tokens = torch.zeros(len(item), dim)
    tokens[visible] = seen
    expected = torch.cat([by_hand(decoder, tokens[item == i], *grid) for i, grid in enumerate(grids)])
    torch.testing.assert_close(made, expected[~visible], atol=1e-5, rtol=1e-4)


def test_tokens_may_come_in_any_order_and_some_may_be_missing():
    decoder, (item, coordinates) = shaken_decoder(), places((3, 4), (3, 4))
    visible = torch.rand(24) < 0.5
    seen, order = torch.randn(24, 12), torch.randperm(24)
    plain = decoder(seen[visible], visible, torch.ones(24, dtype=torch.bool), item, coordinates)
    moved = visible[order]
    other = decoder(seen[order][moved], moved, torch.ones(24, dtype=torch.bool), item[order], coordinates[order])
    torch.testing.assert_close(other, plain[order], atol=1e-5, rtol=1e-4)
    part = decoder(seen[visible][:0], torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=torch.bool), item[:5], coordinates[:5])
    assert part.shape == (5, 8) and part.isfinite().all()


def test_noise_is_drawn_in_training_alone():
    decoder, (item, coordinates) = shaken_decoder(depth=1, noise=0.5), places((6, 6))
    nothing, all_of_it = torch.zeros(36, dtype=torch.bool), torch.ones(36, dtype=torch.bool)
    seen = torch.zeros(0, 12)
    assert torch.equal(*(decoder(seen, nothing, all_of_it, item, coordinates) for _ in range(2)))
    decoder.train()
    drawn = [decoder(seen, nothing, all_of_it, item, coordinates) for _ in range(2)]
    assert not torch.allclose(*drawn, atol=0.1)


def test_every_parameter_learns():
    decoder, (item, coordinates) = shaken_decoder(), places((3, 4))
    visible = torch.arange(12) % 3 == 0
    decoder(torch.randn(4, 12), visible, ~visible, item, coordinates).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in decoder.parameters())


def test_data2vec_and_eat_have_so_many_weights():
    assert sum(x.numel() for x in ConvDecoder(768).parameters()) == 6 * (768 * 48 * 9 + 768)


@pytest.mark.parametrize("settings", [{"depth": 0}, {"kernel_size": 2}, {"groups": 5}, {"width": 10}, {"noise": -1.0}])
def test_settings_are_checked(settings):
    with pytest.raises(ValueError, match=r"must be|odd"):
        ConvDecoder(12, **{"width": 8, "groups": 4, **settings})


def test_sequences_are_refused():
    with pytest.raises(ValueError, match="needs tokens with a row and a column, got 1"):
        shaken_decoder().check(torch.zeros(3, 1, dtype=torch.int64))
