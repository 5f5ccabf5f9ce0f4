"""The encoder: where its norms and positions stand, which layers are local, what it refuses."""

from functools import partial

import pytest
import torch
from torch import nn

from multimodal.nn import Alibi, Attention, BucketedBias, Encoder, LayerNorm, PostNormBlock, RotaryPosition, SinCosPosition, layer_of
from tests.nn.naive import gelu, layer_norm, linear, self_attention, weights_under
from tests.nn.option_sets import OPTION_SETS, SIZES, make

SMALL = {"dim": 8, "depth": 2, "num_heads": 2}


def rotated(x, places, period):
    """LLaMA's rotation of one head, ``(l, e)``: channel i with channel i + e / 2."""
    half = x.shape[1] // 2
    angles = places[:, None] * period ** (-torch.arange(half, dtype=torch.float64) / half)
    turned = torch.complex(x[:, :half], x[:, half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], 1)


def test_local_layers_have_a_window_and_a_rotation_of_their_own():
    """ModernBERT: layers 0, 3, ... see all tokens with one base, the others their neighbours with another."""
    torch.manual_seed(0)
    encoder = Encoder(
        dim=8,
        depth=5,
        num_heads=2,
        rotary=partial(RotaryPosition, axes=1, max_period=160_000.0),
        local_rotary=partial(RotaryPosition, axes=1, max_period=10_000.0),
        window=2,
        first_norm=False,
        norm_at="none",
    )
    encoder = encoder.double().eval()
    for parameter in encoder.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    x, places = torch.randn(9, 8, dtype=torch.float64), torch.arange(9)
    tokens = x
    far = (places[:, None] - places).abs() > 2
    for number, block in enumerate(encoder.blocks):
        layer, period = weights_under(block, "attn."), 160_000.0 if number in (0, 3) else 10_000.0
        norm = lambda x, n: layer_norm(x, n.weight, n.bias)  # noqa: E731
        first = x if number == 0 else norm(x, block.norm1)
        mask = torch.zeros(2, 9, 9, dtype=torch.float64).masked_fill(far & (number not in (0, 3)), -torch.inf)
        x = x + self_attention(first, layer, 2, mask, qk=lambda q, k, p=period: (rotated(q, places, p), rotated(k, places, p)))
        hidden = gelu(linear(norm(x, block.norm2), block.mlp.fc1.weight, block.mlp.fc1.bias))
        x = x + linear(hidden, block.mlp.fc2.weight, block.mlp.fc2.bias)
    made = encoder(tokens, torch.zeros(9, dtype=torch.int64), places[:, None]).tokens
    torch.testing.assert_close(made, x, atol=1e-5, rtol=1e-5)  # angles are float32


def test_a_token_beyond_the_window_changes_nothing_in_a_local_layer():
    encoder = Encoder(dim=8, depth=2, num_heads=2, window=3, global_every=2).eval()
    encoder.blocks[0].attn.proj.weight.data.zero_()  # the global layer mixes nothing
    tokens, sequence = torch.randn(10, 8), torch.zeros(10, dtype=torch.int64)
    other = tokens.clone()
    other[0] = torch.randn(8)
    changed = (encoder(tokens, sequence).tokens != encoder(other, sequence).tokens).any(1)
    assert changed.tolist() == [True] * 4 + [False] * 6


def test_where_norms_stand():
    tokens, sequence = torch.randn(5, 8), torch.zeros(5, dtype=torch.int64)
    for norm_at in ("output", "input", "none"):
        encoder = Encoder(**SMALL, norm_at=norm_at).eval()
        norms = {name: module for name, module in encoder.named_children() if isinstance(module, LayerNorm)}
        assert list(norms) == {"output": ["norm"], "input": ["input_norm"], "none": []}[norm_at]
        for norm in norms.values():
            norm.weight.data, norm.bias.data = torch.rand(8), torch.rand(8)
        bare = Encoder(**SMALL, norm_at="none").eval()
        bare.load_state_dict({name: value for name, value in encoder.state_dict().items() if name.startswith("blocks")})
        given = norms["input_norm"](tokens) if norm_at == "input" else tokens
        made = bare(given, sequence).tokens
        torch.testing.assert_close(encoder(tokens, sequence).tokens, norms["norm"](made) if norm_at == "output" else made)


def test_class_and_register_tokens_are_learned_first_tokens_with_positions_of_their_own():
    encoder = make("class token and registers")
    special = encoder.special
    bare = make("plain")
    bare.load_state_dict({name: value for name, value in encoder.state_dict().items() if not name.startswith("special")})
    tokens, sequence = torch.randn(7, 16), torch.tensor([0, 0, 0, 2, 2, 2, 2])
    encoded = encoder(tokens, sequence)
    assert encoded.class_token.shape == (3, 16) and encoded.registers.shape == (3, 2, 16)
    for number, own in ((0, tokens[:3]), (1, tokens[:0]), (2, tokens[3:])):
        alone = bare(torch.cat([special.tokens + special.positions, own]), torch.zeros(3 + len(own), dtype=torch.int64)).tokens
        torch.testing.assert_close(encoded.class_token[number], alone[0])
        torch.testing.assert_close(encoded.registers[number], alone[1:3])
        torch.testing.assert_close(encoded.tokens[sequence == number], alone[3:])


def test_what_layers_see_between_them_leaves_special_tokens_out():
    encoder = make("class token and registers")
    tokens, sequence = torch.randn(7, 16), torch.tensor([0, 0, 0, 1, 1, 1, 1])
    encoded, layers = encoder.forward_intermediates(tokens, sequence, indices=(2, 0))
    torch.testing.assert_close(encoder.norm(layers[1]), encoded.tokens)
    first = Encoder(**{**SIZES, "depth": 1}, **OPTION_SETS["class token and registers"], norm_at="none").eval()
    first.load_state_dict({name: value for name, value in encoder.state_dict().items() if name in first.state_dict()})
    torch.testing.assert_close(first(tokens, sequence).tokens, layers[0])
    _, dense = encoder.forward_dense(tokens[None, :3], indices=(0, 2))
    torch.testing.assert_close(dense[0][0, 3:], layers[0][:3])
    torch.testing.assert_close(dense[1][0, 3:], layers[1][:3])


def test_a_bias_is_shared_or_of_each_layer():
    shared, own = (Encoder(**SMALL, bias=BucketedBias, share_bias=share) for share in (True, False))
    tables = [[name for name, _ in encoder.named_parameters() if "table" in name] for encoder in (shared, own)]
    assert tables == [["bias.table"], ["blocks.0.attn.position_bias.table", "blocks.1.attn.position_bias.table"]]
    own.load_state_dict({**own.state_dict(), **{k: v for k, v in shared.state_dict().items() if k != "bias.table"}})
    torch.nn.init.normal_(shared.bias.table)
    for name in tables[1]:
        own.get_parameter(name).data.copy_(shared.bias.table)
    tokens, sequence = torch.randn(6, 8), torch.tensor([0, 0, 1, 1, 1, 1])
    given = (tokens, sequence, torch.arange(6)[:, None])
    torch.testing.assert_close(own(*given).tokens, shared(*given).tokens)


def test_alibi_takes_coordinates_that_are_no_whole_numbers():
    encoder = Encoder(**SMALL, bias=Alibi, rotary=partial(RotaryPosition, axes=1)).eval()
    for parameter in encoder.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    tokens, sequence = torch.randn(4, 8), torch.zeros(4, dtype=torch.int64)
    seconds = torch.tensor([[0.0], [0.25], [0.5], [3.0]])
    torch.testing.assert_close(encoder(tokens, sequence, seconds).tokens, encoder.forward_dense(tokens[None], seconds)[0][0])
    assert not torch.allclose(encoder(tokens, sequence, seconds).tokens, encoder(tokens, sequence, 2 * seconds).tokens, atol=1e-2)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"global_every": 0}, "global_every must be at least 1, got 0"),
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"drop_path": 1.0}, r"drop_path must be in \[0, 1\), got 1.0"),
        ({"local_rotary": RotaryPosition}, "local_rotary has an effect only with window and rotary"),
        ({"num_registers": 2}, "num_registers 2 needs a class_token"),
        ({"special_positions": True}, "special_positions has an effect only with a class_token"),
        (
            {"first_norm": False, "block": PostNormBlock},
            "first_norm leaves out the norm before attention, which a PostNormBlock does not have",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Encoder(**{**SMALL, **settings})


def test_unknown_words_are_refused(unchecked):
    with pytest.raises(ValueError, match="norm_at must be one of output, input, none, got 'both'"):
        Encoder(**SMALL, norm_at="both")
    with pytest.raises(ValueError, match="bias must be one of all, query_value, none, got 'key'"):
        Attention(8, 2, bias="key")


def test_layers_for_a_learning_rate_that_decays_are_those_of_beit():
    """``unilm beit/optim_factory.py``: embeddings are 0, layer i is i + 1, all else is after the last."""
    layers = {
        "modalities.image.embed.proj.weight": 0,
        "modalities.image.embed.mask_token": 0,
        "embeds.image.position.table": 0,
        "encoder.special.tokens": 0,
        "encoder.convolution.gain": 0,
        "encoder.input_norm.weight": 0,
        "encoder.blocks.0.norm1.weight": 1,
        "encoder.blocks.11.mlp.fc2.bias": 12,
        "encoder.blocks.4.experts.1.attn.qkv.weight": 5,
        "encoder.blocks.4.attn.position_bias.table": 5,
        "encoder._orig_mod.blocks.4._orig_mod.attn.qkv.weight": 5,
        "encoder.bias.table": 13,
        "encoder.norm.weight": 13,
        "modalities.image.head.proj.weight": 13,
        "modalities.image.tokenizer.encoder.blocks.3.weight": 13,
        "head.proj.weight": 13,
    }
    assert {name: layer_of(name, depth=12) for name in layers} == layers
    scales = sorted({0.65 ** (13 - layer) for layer in range(14)})
    assert scales[0] == pytest.approx(0.0037, abs=1e-4) and scales[1] == pytest.approx(0.00569, abs=1e-5)
    with pytest.raises(ValueError, match=r"encoder.blocks.12.norm1.weight is of layer 12 .* depth of 12"):
        layer_of("encoder.blocks.12.norm1.weight", depth=12)


def test_each_parameter_of_a_model_has_a_layer():
    model = nn.Module()
    model.encoder = make("deep norm, convolution, gated buckets")
    model.embeds = nn.ModuleDict({"music": nn.Linear(3, 16)})
    counts = [0] * 5
    for name, _ in model.named_parameters():
        counts[layer_of(name, model.encoder.depth)] += 1
    per_layer = len(list(model.encoder.blocks[0].parameters()))
    assert counts == [2 + 3 + 2, per_layer, per_layer, per_layer, 1]  # the bias that all layers share is last


def test_positions_of_the_embedding_reach_the_encoder():
    position = SinCosPosition(8)
    encoder = Encoder(**SMALL).eval()
    tokens, sequence = torch.randn(1, 8).expand(3, 8), torch.zeros(3, dtype=torch.int64)
    assert torch.allclose(encoder(tokens, sequence).tokens[0], encoder(tokens, sequence).tokens[1])
    placed = encoder(tokens + position(torch.arange(3)[:, None]), sequence).tokens
    assert not torch.allclose(placed[0], placed[1], atol=1e-3)
