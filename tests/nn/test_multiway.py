"""Experts: one encoder whose weights tokens of different kinds do not share."""

from functools import partial

import pytest
import torch

from multimodal.nn import Attention, Encoder, LayerNorm, Mlp
from tests.nn.naive import gelu, layer_norm, linear, weights_under
from tests.nn.option_sets import make

FINE = partial(LayerNorm, eps=1e-5)
SUB_NORM = {"attention": partial(Attention, inner_norm=FINE), "mlp": partial(Mlp, inner_norm=FINE), "norm": FINE}


def routed(x, split, weights, change):
    """BEiT-3's split: the first tokens through the weights of expert 0, the others through those of expert 1."""
    first, second = (
        {name.removeprefix(f"experts.{n}."): w for name, w in weights.items() if name.startswith(f"experts.{n}.")} for n in (0, 1)
    )
    return torch.cat([change(x[:split], first), change(x[split:], second)])


def beit3(tokens, split, encoder, num_heads):
    """BEiT-3: every linear layer and norm twice, attention over all tokens together."""
    x = tokens
    norm = lambda x, w, name: layer_norm(x, w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)  # noqa: E731
    for number in range(encoder.depth):
        route = partial(routed, split=split, weights=weights_under(encoder, f"blocks.{number}."))
        three = route(x, change=lambda x, w: linear(norm(x, w, "norm1"), w["attn.qkv.weight"], w["attn.qkv.bias"]))
        query, key, value = (part.unflatten(1, (num_heads, -1)).transpose(0, 1) for part in three.chunk(3, 1))  # l (h e) -> h l e
        weight = torch.softmax(query @ key.transpose(1, 2) / query.shape[2] ** 0.5, -1)
        mixed = (weight @ value).transpose(0, 1).flatten(1)
        x = x + route(mixed, change=lambda x, w: linear(norm(x, w, "attn.inner_norm"), w["attn.proj.weight"], w["attn.proj.bias"]))

        def feed(x, w):
            hidden = gelu(linear(norm(x, w, "norm2"), w["mlp.fc1.weight"], w["mlp.fc1.bias"]))
            return linear(norm(hidden, w, "mlp.inner_norm"), w["mlp.fc2.weight"], w["mlp.fc2.bias"])

        x = x + route(x, change=feed)
    last = weights_under(encoder, "norm.")
    return routed(x, split, last, lambda x, w: layer_norm(x, w["weight"], w["bias"], 1e-5))


@pytest.mark.parametrize("split", [0, 1, 4, 6])
def test_the_encoder_is_that_of_beit_3(split):
    torch.manual_seed(0)
    encoder = Encoder(dim=8, depth=2, num_heads=2, num_experts=2, **SUB_NORM).double().eval()
    for parameter in encoder.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    tokens = torch.randn(6, 8, dtype=torch.float64)
    expert = (torch.arange(6) >= split).long()
    expected = beit3(tokens, split, encoder, 2)
    sequence = torch.zeros(6, dtype=torch.int64)
    torch.testing.assert_close(encoder(tokens, sequence, expert=expert).tokens, expected)
    order = torch.randperm(6)
    torch.testing.assert_close(encoder(tokens[order], sequence, expert=expert[order]).tokens, expected[order])
    if split in (0, 6):
        torch.testing.assert_close(encoder.forward_dense(tokens[None], expert=int(split == 0))[0][0], expected)


@pytest.mark.parametrize("name", ["plain", "sub-norm", "class token and registers", "gated bias of each layer within a window"])
def test_experts_with_equal_weights_are_an_encoder_without_experts(name):
    single, several = make(name), make(name, num_experts=3)
    for key, value in several.state_dict().items():
        before, _, after = key.partition("experts.")
        several.state_dict()[key].copy_(single.state_dict()[before + after.partition(".")[2]] if after else value)
    if several.special is not None:
        several.special.load_state_dict(single.special.state_dict())
    tokens, sequence = torch.randn(9, 16), torch.tensor([0, 1, 1, 2, 2, 0, 3, 3, 3])
    coordinates, expert = torch.zeros(9, 2, dtype=torch.int64), torch.tensor([0, 0, 1, 2, 0, 1, 0, 1, 2])
    ours, theirs = several(tokens, sequence, coordinates, expert), single(tokens, sequence, coordinates)
    torch.testing.assert_close(ours.tokens, theirs.tokens)
    if several.special is not None:
        torch.testing.assert_close(ours.class_token, theirs.class_token)
        torch.testing.assert_close(ours.registers, theirs.registers)


def test_special_tokens_are_of_expert_0_and_only_where_it_has_tokens():
    encoder = make("experts")
    encoded = encoder(torch.randn(5, 16), torch.tensor([0, 0, 1, 1, 2]), expert=torch.tensor([1, 1, 0, 1, 0]))
    assert (encoded.class_token[0] == 0).all() and (encoded.class_token[1:] != 0).all()


@pytest.mark.parametrize("wrong", [2, -1])
def test_an_expert_that_there_is_not_is_refused(wrong):
    encoder = make("experts, gated bias of each layer")
    coordinates = torch.zeros(3, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="experts must be from 0 to 1, got"):
        encoder(torch.randn(3, 16), torch.zeros(3, dtype=torch.int64), coordinates, torch.tensor([0, 1, wrong]))
    with pytest.raises(ValueError, match=f"expert must be from 0 to 1, got {wrong}"):
        encoder.forward_dense(torch.randn(1, 3, 16), coordinates, expert=wrong)


def test_the_tokens_of_all_experts_skip_a_branch_together():
    encoder = Encoder(dim=8, depth=2, num_heads=2, num_experts=2, drop_path=0.5, layer_scale=1.0, norm_at="none").train()
    encoder.blocks[0].experts[0].scale1.gamma.data.zero_()  # of layer 1 alone, whose rate is 0.5, anything is left
    for expert in encoder.layers(0):
        expert.scale1.gamma.data.zero_()
        expert.scale2.gamma.data.zero_()
    for expert in encoder.layers(1):
        expert.scale2.gamma.data.zero_()
        expert.attn.proj.bias.data.fill_(1.0)  # so that a branch that is kept changes each token
    torch.manual_seed(0)
    tokens, sequence = torch.randn(400, 8), torch.arange(100).repeat_interleave(4)
    made = encoder(tokens, sequence, expert=torch.tensor([0, 1, 1, 0]).repeat(100)).tokens
    skipped = (made == tokens).all(1).view(100, 4)
    assert (skipped.all(1) | ~skipped.any(1)).all()
    assert 30 < skipped.all(1).sum() < 70
