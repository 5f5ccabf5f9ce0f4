"""The decoder of local attention, against a dense computation: Swin's windows, moved by rolling the grid and masking what wraps around."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal.nn import Block, SinCosPosition2d, WindowDecoder


def shaken_decoder(**settings) -> WindowDecoder:
    torch.manual_seed(0)
    decoder = WindowDecoder(10, **{"width": 8, "depth": 4, "num_heads": 2, "window": (4, 4), **settings}).eval()
    for parameter in decoder.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return decoder


def grids(count: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    return torch.arange(count).repeat_interleave(len(places)), places.repeat(count, 1)


def windows(x: Tensor) -> Tensor:
    """``(items, rows, columns, ...)`` in windows of 4 x 4: ``(items, windows, 16, ...)``."""
    return x.unflatten(1, (-1, 4)).unflatten(3, (-1, 4)).movedim(3, 2).flatten(1, 2).flatten(2, 3)


def rolled_layer(x: Tensor, block: Block, shift: tuple[int, int]) -> Tensor:
    """One layer of ``(items, rows, columns, 8)`` with 2 heads, as Swin describes it."""
    _, rows, columns, _ = x.shape
    normed = F.layer_norm(x, (8,), block.norm1.weight, block.norm1.bias, 1e-6)
    normed = normed.roll((-shift[0], -shift[1]), (1, 2))
    region = torch.zeros(rows, columns)
    region[rows - shift[0] :] += 1  # came around
    region[:, columns - shift[1] :] += 2
    region = windows(region[None])  # 1 windows 16
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(-3, -2) for part in windows(block.attn.qkv(normed)).chunk(3, -1))
    place = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    difference = place[:, None] - place + 3
    bias = block.attn.position_bias.table[difference[..., 0] * 7 + difference[..., 1]].permute(2, 0, 1)
    apart = (region[..., :, None] != region[..., None, :])[:, :, None]
    logits = (q @ k.transpose(-1, -2) / 2 + bias).masked_fill(apart, -torch.inf)
    mixed = (logits.softmax(-1) @ v).transpose(-3, -2).flatten(-2)  # items windows 16 8
    mixed = mixed.unflatten(1, (rows // 4, columns // 4)).unflatten(3, (4, 4)).movedim(3, 2).flatten(3, 4).flatten(1, 2)
    x = x + block.attn.proj(mixed.roll(shift, (1, 2)))
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(F.layer_norm(x, (8,), block.norm2.weight, block.norm2.bias, 1e-6))))


@pytest.mark.parametrize("shift", [(2, 0), (2, 2), (1, 3), (0, 0)])
def test_hidden_tokens_are_those_of_rolled_and_masked_windows(shift):
    decoder, (item, coordinates) = shaken_decoder(shift=shift), grids(3, 12, 8)
    visible = torch.rand(288) < 0.2
    seen = torch.randn(int(visible.sum()), 10)
    made = decoder(seen, visible, ~visible, item, coordinates, torch.randn(3, 10))
    x = decoder.mask_token.repeat(288, 1)
    x[visible] = seen @ decoder.proj.weight.T + decoder.proj.bias
    x = (x + SinCosPosition2d(8)(coordinates)).view(3, 12, 8, 8)
    for number, block in enumerate(decoder.layers.blocks):
        x = rolled_layer(x, block, (0, 0) if number % 2 == 0 else shift)
    x = F.layer_norm(x, (8,), decoder.layers.norm.weight, decoder.layers.norm.bias, 1e-6)
    torch.testing.assert_close(made, x.flatten(0, 2)[~visible], atol=1e-5, rtol=1e-4)


def test_items_of_unequal_numbers_of_rows_do_not_depend_on_the_batch():
    decoder, rows = shaken_decoder(), (7, 3, 12)
    parts = [grids(1, r, 5) for r in rows]
    item = torch.repeat_interleave(torch.tensor([5 * r for r in rows]))
    coordinates = torch.cat([own for _, own in parts])
    visible = torch.rand(len(item)) < 0.3
    seen = torch.randn(int(visible.sum()), 10)
    together = decoder(seen, visible, ~visible, item, coordinates)
    for i, (zeros, places) in enumerate(parts):
        own = item == i
        alone = decoder(seen[own[visible]], visible[own], ~visible[own], zeros, places)
        torch.testing.assert_close(together[own[~visible]], alone, atol=1e-5, rtol=1e-4)


def test_two_layers_reach_the_neighbours_in_time_and_not_those_in_frequency():
    decoder, (item, coordinates) = shaken_decoder(depth=2), grids(1, 16, 8)
    visible = torch.zeros(128, dtype=torch.bool)
    visible[6 * 8 + 1] = True  # row 6, column 1
    made = [decoder(x, visible, ~visible, item, coordinates) for x in (torch.zeros(1, 10), torch.ones(1, 10))]
    reached = coordinates[~visible][(made[0] - made[1]).abs().amax(1) > 1e-6]
    assert sorted(set(reached[:, 0].tolist())) == list(range(2, 10))  # rows 4 to 7, then the windows of rows 2 to 5 and 6 to 9
    assert reached[:, 1].max() == 3


def test_every_parameter_but_the_biases_of_special_tokens_learns():
    decoder, (item, coordinates) = shaken_decoder(), grids(2, 8, 8)
    visible = torch.rand(128) < 0.3
    decoder(torch.randn(int(visible.sum()), 10), visible, ~visible, item, coordinates).square().sum().backward()
    for name, parameter in decoder.named_parameters():
        learned = parameter.grad[:-3] if name.endswith("table") else parameter.grad
        assert learned.abs().sum() > 0, name


@pytest.mark.parametrize("settings", [{"shift": (4, 0)}, {"shift": (-1, 0)}, {"shift": (2,)}, {"window": (4,)}, {"window": (0, 4)}])
def test_windows_are_checked(settings):
    with pytest.raises(ValueError, match="must be"):
        shaken_decoder(**settings)


def test_sequences_are_refused():
    with pytest.raises(ValueError, match="needs tokens with a row and a column, got 1"):
        shaken_decoder().check(torch.zeros(3, 1, dtype=torch.int64))
