"""What queries and keys add to the logits, against loops over heads and tokens."""

import itertools
import math
from functools import partial

import pytest
import torch

from multimodal.nn import Attention, AttentionPlan, BucketedBias, Encoder, GatedBias, Packing, RelativeKeyQuery
from tests.nn.naive import attend, heads, linear, weights_under

DIM, HEADS, WIDTH, LENGTH = 12, 3, 4, 7


def make(content_bias, bias=None):
    torch.manual_seed(0)
    attention = Attention(DIM, HEADS, content_bias=content_bias).double()
    for parameter in attention.parameters():
        parameter.data.normal_(std=0.5)
    plan = AttentionPlan(Packing.dense(1, LENGTH, torch.device("cpu")), biases=() if bias is None else (bias[None],))
    return attention, torch.randn(LENGTH, DIM, dtype=torch.float64), plan


def heads_of(x, weights):
    three = linear(x, weights["qkv.weight"], weights["qkv.bias"])
    return [heads(part, HEADS) for part in three.split(DIM, 1)]


def beats_attention(x, weights, bias, trick):
    """Attention of BEATs; ``trick`` divides queries by 32 and multiplies the logits less their maximum by 32, against overflow."""
    mixed = []
    for h, (query, key, value) in enumerate(zip(*heads_of(x, weights), strict=True)):
        rows = []
        for i, q in enumerate(query):
            eight = linear(q, weights["content_bias.linear.weight"], weights["content_bias.linear.bias"]).tolist()
            a, b = (1 / (1 + math.exp(-sum(four))) for four in (eight[:4], eight[4:]))
            gate = a * (b * weights["content_bias.scale"][h].item() - 1) + 2
            logits = torch.stack([(q / math.sqrt(WIDTH) / (32 if trick else 1)) @ k for k in key])
            if trick:
                logits = (logits - logits.max()) * 32
            logits = logits + gate * bias[h, i]
            share = torch.exp(logits) / torch.exp(logits).sum()
            rows.append(sum(s * v for s, v in zip(share, value, strict=True)))
        mixed.append(torch.stack(rows))
    return linear(torch.cat(mixed, 1), weights["proj.weight"], weights["proj.bias"])


@pytest.mark.parametrize("trick", [False, True])
def test_a_gated_bias_is_that_of_beats(trick):
    bias = torch.randn(HEADS, LENGTH, LENGTH, dtype=torch.float64)
    attention, x, plan = make(GatedBias, bias)
    expected = beats_attention(x, weights_under(attention, ""), bias, trick)
    torch.testing.assert_close(attention(x, plan), expected)


def test_gates_begin_with_what_wavlm_and_beats_begin_with():
    gated = GatedBias(2, 4)
    gated.linear.weight.data.zero_()
    gated.linear.bias.data.zero_()
    made = gated(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), None, torch.ones(1, 2, 3, 3))
    assert (made == 0.5 * (0.5 * 1 - 1) + 2).all()


def test_a_gate_does_not_touch_what_hides_tokens():
    """With a gate below 0, minus infinity would become plus infinity; with one of 0, not a number."""
    bias = torch.randn(1, 2, 4, 4)
    hidden = torch.eye(4, dtype=torch.bool).roll(1, 0)
    for least in (-torch.inf, torch.finfo(torch.float32).min):
        for scale in (1.0, -8.0):
            gated = GatedBias(2, 4)
            gated.scale.data.fill_(scale)
            query = torch.randn(1, 2, 4, 4, requires_grad=True)
            made = gated(query, query, None, bias.masked_fill(hidden, least))
            assert (made[..., hidden] <= torch.finfo(torch.float32).min).all()
            torch.testing.assert_close(made[..., ~hidden], gated(query, query, None, bias)[..., ~hidden])
            made.softmax(-1).square().sum().backward()
            assert all(parameter.grad.isfinite().all() for parameter in (query, *gated.parameters()))


def test_a_gate_needs_a_bias():
    gated = partial(Attention, content_bias=GatedBias)
    with pytest.raises(ValueError, match="GatedBias scales the encoder's position bias: give the encoder one"):
        Encoder(dim=8, depth=1, num_heads=2, attention=gated)
    with pytest.raises(ValueError, match="GatedBias scales"):
        GatedBias(2, 4)(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), None, None)
    Encoder(dim=8, depth=1, num_heads=2, attention=gated, bias=BucketedBias, share_bias=False)


@pytest.mark.parametrize("with_bias", [False, True])
def test_relative_keys_and_queries_are_those_of_bert(with_bias):
    bias = torch.randn(HEADS, LENGTH, LENGTH, dtype=torch.float64)
    attention, x, plan = make(partial(RelativeKeyQuery, max_length=9), bias if with_bias else None)
    weights = weights_under(attention, "")
    distances = weights["content_bias.distances"]
    assert distances.shape == (17, WIDTH)
    mixed = []
    for h, (query, key, value) in enumerate(zip(*heads_of(x, weights), strict=True)):
        own = torch.zeros(LENGTH, LENGTH, dtype=torch.float64)
        for i, j in itertools.product(range(LENGTH), repeat=2):
            vector = distances[i - j + 9 - 1]
            own[i, j] = (query[i] @ vector + key[j] @ vector) / math.sqrt(WIDTH)
        mixed.append(attend(query, key, value, own + bias[h] if with_bias else own))
    expected = linear(torch.cat(mixed, 1), weights["proj.weight"], weights["proj.bias"])
    torch.testing.assert_close(attention(x, plan), expected)


def test_class_and_register_tokens_count_as_the_first_of_a_sequence():
    attention = partial(Attention, content_bias=partial(RelativeKeyQuery, max_length=6))
    encoder = Encoder(dim=8, depth=1, num_heads=2, attention=attention, class_token=True, num_registers=1).eval()
    tokens, sequence = torch.randn(4, 8), torch.zeros(4, dtype=torch.int64)
    encoded = encoder(tokens, sequence)
    plain = Encoder(dim=8, depth=1, num_heads=2, attention=attention).eval()
    plain.load_state_dict(encoder.state_dict(), strict=False)
    by_hand = plain(torch.cat([encoder.special.tokens, tokens]), torch.zeros(6, dtype=torch.int64)).tokens
    torch.testing.assert_close(encoded.tokens, by_hand[2:])
    torch.testing.assert_close(encoded.class_token[0], by_hand[0])
    with pytest.raises(ValueError, match="a sequence has 7 tokens; the relative positions of attention end at max_length 6"):
        encoder(torch.randn(5, 8), torch.zeros(5, dtype=torch.int64))
