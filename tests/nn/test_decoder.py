"""The decoder against a dense computation with plain torch."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal.nn import Block, Decoder, SinCosPosition2d


def shaken_decoder() -> Decoder:
    torch.manual_seed(0)
    decoder = Decoder(10, width=8, depth=2, num_heads=2).eval()
    for parameter in decoder.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return decoder


def dense_layer(x: Tensor, block: Block) -> Tensor:
    """One pre-norm layer of ``(items, tokens, 8)`` with 2 heads."""
    q, k, v = block.attn.qkv(F.layer_norm(x, (8,), block.norm1.weight, block.norm1.bias, 1e-6)).chunk(3, -1)
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in (q, k, v))
    x = x + block.attn.proj(((q @ k.transpose(2, 3) / 2).softmax(-1) @ v).transpose(1, 2).flatten(2))
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(F.layer_norm(x, (8,), block.norm2.weight, block.norm2.bias, 1e-6))))


def grids(count: int) -> tuple[Tensor, Tensor]:
    """The item of each token of grids of 3 x 4, and its coordinates."""
    places = torch.cartesian_prod(torch.arange(3), torch.arange(4))
    return torch.arange(count).repeat_interleave(12), places.repeat(count, 1)


@pytest.mark.parametrize("class_token", [False, True])
def test_hidden_tokens_are_those_of_a_dense_transformer(class_token):
    decoder, (item, coordinates) = shaken_decoder(), grids(3)
    visible = torch.rand(36) < 0.4
    seen = torch.randn(int(visible.sum()), 10)
    firsts = torch.randn(3, 10) if class_token else None
    made = decoder(seen, visible, ~visible, item, coordinates, firsts)
    x = decoder.mask_token.repeat(36, 1)
    x[visible] = seen @ decoder.proj.weight.T + decoder.proj.bias
    x = (x + SinCosPosition2d(8)(coordinates)).view(3, 12, 8)
    x = x if firsts is None else torch.cat([decoder.proj(firsts)[:, None], x], 1)
    for block in decoder.layers.blocks:
        x = dense_layer(x, block)
    x = F.layer_norm(x, (8,), decoder.layers.norm.weight, decoder.layers.norm.bias, 1e-6)
    x = x if firsts is None else x[:, 1:]
    torch.testing.assert_close(made, x.flatten(0, 1)[~visible], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("class_token", [False, True])
def test_an_item_does_not_depend_on_others_of_the_batch(class_token):
    decoder, (item, coordinates) = shaken_decoder(), grids(4)
    visible = torch.rand(48) < 0.4
    seen, firsts = torch.randn(int(visible.sum()), 10), torch.randn(4, 10) if class_token else None
    together = decoder(seen, visible, ~visible, item, coordinates, firsts)
    own = item == 2
    alone = decoder(seen[own[visible]], visible[own], ~visible[own], item[:12], coordinates[:12], None if firsts is None else firsts[2:3])
    torch.testing.assert_close(together[own[~visible]], alone, atol=1e-5, rtol=1e-4)


def test_what_the_class_token_saw_reaches_hidden_tokens():
    decoder, (item, coordinates) = shaken_decoder(), grids(2)
    visible = torch.rand(24) < 0.4
    seen, firsts = torch.randn(int(visible.sum()), 10), torch.randn(2, 10)
    other = firsts.clone()
    other[1] = 3.0
    before, after = (decoder(seen, visible, ~visible, item, coordinates, x) for x in (firsts, other))
    changed = (before - after).abs().amax(1) > 1e-6
    assert torch.equal(changed, item[~visible] == 1)


def test_tokens_of_items_of_unequal_length_and_some_that_are_neither_seen_nor_predicted():
    decoder = shaken_decoder()
    item = torch.tensor([0] * 5 + [1] * 3)
    coordinates = torch.stack([torch.arange(8), torch.zeros(8, dtype=torch.int64)], 1)
    visible = torch.tensor([True, False, True, False, False, True, True, False])
    masked = torch.tensor([False, True, False, False, True, False, False, True])
    made = decoder(torch.randn(4, 10), visible, masked, item, coordinates)
    assert made.shape == (3, 8) and made.isfinite().all()


def test_every_parameter_learns():
    decoder, (item, coordinates) = shaken_decoder(), grids(2)
    visible = torch.rand(24) < 0.4
    decoder(torch.randn(int(visible.sum()), 10), visible, ~visible, item, coordinates, torch.randn(2, 10)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in decoder.parameters())
