"""Layers against the same arithmetic, written out from the papers."""

import itertools
import math
from functools import partial

import pytest
import torch

from multimodal.nn import (
    Attention,
    AttentionPlan,
    Block,
    BlockParts,
    DeepNormBlock,
    Encoder,
    GeGlu,
    LayerNorm,
    Mlp,
    Packing,
    ParallelBlock,
    PostNormBlock,
    RmsNorm,
    SwiGlu,
)
from multimodal.nn.mlp import activation
from tests.nn.naive import gelu, layer_norm, linear, mlp, self_attention, silu, weights_under

DIM, HEADS, DEPTH = 8, 2, 5


def make_block(kind=Block, attention=Attention, mlp=Mlp, norm=LayerNorm, layer_scale=None, drop_path=0.0):
    """A block of float64 whose weights all matter."""
    torch.manual_seed(0)
    parts = BlockParts(DIM, DEPTH, lambda dim: attention(dim, HEADS), mlp, norm, layer_scale, drop_path)
    block = kind(parts).double()
    for parameter in block.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return block


def run(block, lengths=(5,)):
    """Tokens of some sequences, and what the block makes of them."""
    x = torch.randn(sum(lengths), DIM, dtype=torch.float64)
    packing = Packing.from_sequence(torch.repeat_interleave(torch.tensor(lengths)))
    return x, packing.unpack(block(packing.pack(x), AttentionPlan(packing)))


def parts_of(block):
    """What the block is made of: its attention and its MLP as functions of (tokens), and its norms."""
    attention, feed = weights_under(block, "attn."), weights_under(block, "mlp.")
    norms = [lambda x, n=n: layer_norm(x, n.weight, n.bias, n.eps) for n in (block.norm1, block.norm2) if hasattr(n, "weight")]
    return lambda x: self_attention(x, attention, HEADS), lambda x: mlp(x, feed), norms


def test_a_pre_norm_layer():
    block = make_block()
    attend, feed, (norm1, norm2) = parts_of(block)
    x, made = run(block)
    middle = x + attend(norm1(x))
    torch.testing.assert_close(made, middle + feed(norm2(middle)))


def test_a_layer_scale_multiplies_both_branches():
    block = make_block(layer_scale=0.1)
    attend, feed, (norm1, norm2) = parts_of(block)
    x, made = run(block)
    middle = x + block.scale1.gamma * attend(norm1(x))
    torch.testing.assert_close(made, middle + block.scale2.gamma * feed(norm2(middle)))
    fresh = Encoder(dim=8, depth=1, num_heads=2, layer_scale=1e-5)
    assert fresh.blocks[0].scale1.gamma.tolist() == pytest.approx([1e-5] * 8)


@pytest.mark.parametrize("alpha", [1.0, 1.7])
def test_a_post_norm_layer(alpha):
    block = make_block(partial(PostNormBlock, alpha=alpha), norm=partial(LayerNorm, eps=1e-12))
    attend, feed, (norm1, norm2) = parts_of(block)
    x, made = run(block)
    middle = norm1(alpha * x + attend(x))
    torch.testing.assert_close(made, norm2(alpha * middle + feed(middle)))


def test_a_deep_norm_layer_weighs_its_input_by_the_depth():
    block = make_block(DeepNormBlock)
    attend, feed, (norm1, norm2) = parts_of(block)
    x, made = run(block)
    alpha = math.sqrt(math.sqrt(2 * DEPTH))
    middle = norm1(alpha * x + attend(x))
    torch.testing.assert_close(made, norm2(alpha * middle + feed(middle)))


def test_deep_norm_of_12_layers_has_the_published_factors():
    block = Encoder(dim=768, depth=12, num_heads=12, block=DeepNormBlock).blocks[0]
    assert (block.alpha, block.beta) == (pytest.approx(2.21336, abs=1e-5), pytest.approx(0.31947, abs=1e-5))
    xavier = {"query": 768 + 768, "key": 768 + 768, "value": 768 + 768, "proj": 768 + 768, "fc1": 768 + 3072, "fc2": 768 + 3072}
    query, key, value = block.attn.qkv.weight.chunk(3)
    drawn = {
        "query": query,
        "key": key,
        "value": value,
        "proj": block.attn.proj.weight,
        "fc1": block.mlp.fc1.weight,
        "fc2": block.mlp.fc2.weight,
    }
    for name, weight in drawn.items():
        gain = 1 if name in ("query", "key") else 0.31947
        assert weight.std().item() == pytest.approx(gain * math.sqrt(2 / xavier[name]), rel=0.01), name


def test_a_sub_norm_layer_normalises_the_joined_heads_and_the_hidden_layer():
    fine = partial(LayerNorm, eps=1e-5)
    block = make_block(attention=partial(Attention, inner_norm=fine), mlp=partial(Mlp, inner_norm=fine), norm=fine)
    _, _, (norm1, norm2) = parts_of(block)
    attention, feed = weights_under(block, "attn."), weights_under(block, "mlp.")
    inner = [partial(layer_norm, weight=w["inner_norm.weight"], bias=w["inner_norm.bias"], eps=1e-5) for w in (attention, feed)]
    x, made = run(block)
    middle = x + self_attention(norm1(x), attention, HEADS, inner=inner[0])
    hidden = inner[1](gelu(linear(norm2(middle), feed["fc1.weight"], feed["fc1.bias"])))
    torch.testing.assert_close(made, middle + linear(hidden, feed["fc2.weight"], feed["fc2.bias"]))


def test_a_parallel_layer_adds_both_branches_of_one_norm():
    block = make_block(ParallelBlock)
    attend, feed, (norm,) = parts_of(block)
    x, made = run(block)
    torch.testing.assert_close(made, x + attend(norm(x)) + feed(norm(x)))


def test_rms_norm_divides_by_the_root_of_the_mean_square():
    norm = RmsNorm(4, eps=1e-3)
    norm.weight.data = torch.tensor([1.0, 2.0, 3.0, 4.0])
    root = math.sqrt((1 + 4 + 4 + 16) / 4 + 1e-3)
    made = norm(torch.tensor([[1.0, -2.0, 2.0, 4.0]]))
    torch.testing.assert_close(made, torch.tensor([[1.0, -4.0, 6.0, 16.0]]) / root)


@pytest.mark.parametrize("kind, act", [(GeGlu, gelu), (SwiGlu, silu)])
def test_a_gated_mlp_activates_its_first_half(kind, act):
    layer = kind(6, hidden_dim=5).double()
    x = torch.randn(7, 6, dtype=torch.float64)
    first = linear(x, layer.fc1.weight[:5], layer.fc1.bias[:5])
    second = linear(x, layer.fc1.weight[5:], layer.fc1.bias[5:])
    torch.testing.assert_close(layer(x), linear(act(first) * second, layer.fc2.weight, layer.fc2.bias))


def test_a_gated_mlp_has_as_many_weights_as_a_plain_one():
    plain, gated = (sum(p.numel() for p in kind(768, bias=False).parameters()) for kind in (Mlp, GeGlu))
    assert plain == gated == 8 * 768**2


def test_an_activation_that_there_is_not_is_named():
    with pytest.raises(ValueError, match="act must be one of gelu, gelu_tanh, silu, relu, got 'swish'"):
        activation("swish")


def branches_kept(block, x, made):
    """Which branches (attention, MLP) a sequence has kept, of all that is possible; a kept one counts double, as half are dropped."""
    attend, feed, norms = parts_of(block)
    matching = set()
    for first, second in itertools.product((0, 2), repeat=2):
        if isinstance(block, ParallelBlock):
            second, expected = first, x + first * (attend(norms[0](x)) + feed(norms[0](x)))
        elif isinstance(block, PostNormBlock):
            middle = norms[0](x + first * attend(x))
            expected = norms[1](middle + second * feed(middle))
        else:
            middle = x + first * attend(norms[0](x))
            expected = middle + second * feed(norms[1](middle))
        if torch.allclose(made, expected):
            matching.add((first, second))
    return matching


@pytest.mark.parametrize("kind", [Block, ParallelBlock, PostNormBlock])
def test_stochastic_depth_drops_a_branch_for_a_whole_sequence(kind):
    block = make_block(kind, drop_path=0.5).train()
    torch.manual_seed(3)
    seen = []
    for _ in range(12):
        tokens, made = run(block, (3, 4))
        seen += [branches_kept(block, *each) for each in zip(tokens.split((3, 4)), made.split((3, 4)), strict=True)]
    assert {len(kept) for kept in seen} == {1}
    assert len(set.union(*seen)) == (2 if kind is ParallelBlock else 4)
