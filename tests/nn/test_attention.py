"""Attention's own options against loops over heads and tokens."""

from functools import partial

import pytest
import torch

from multimodal.nn import Attention, AttentionPlan, LayerNorm, Packing, RmsNorm, RotaryPosition
from tests.nn.naive import layer_norm, self_attention, weights_under

DIM, HEADS = 8, 2


def make(**settings):
    torch.manual_seed(0)
    attention = Attention(DIM, HEADS, **settings).double()
    for parameter in attention.parameters():
        parameter.data.normal_(std=0.5)
    return attention, torch.randn(5, DIM, dtype=torch.float64), AttentionPlan(Packing.dense(1, 5, torch.device("cpu")))


def test_scaled_dot_product_attention_with_all_biases():
    attention, x, plan = make()
    torch.testing.assert_close(attention(x, plan), self_attention(x, weights_under(attention, ""), HEADS))


def test_biases_of_query_and_value_alone():
    attention, x, plan = make(bias="query_value")
    query, value = attention.query_value_bias
    weights = weights_under(attention, "") | {"qkv.bias": torch.cat([query, torch.zeros(DIM), value])}
    torch.testing.assert_close(attention(x, plan), self_attention(x, weights, HEADS))


def test_no_biases():
    attention, x, plan = make(bias="none", output_bias=False)
    assert [name for name, _ in attention.named_parameters()] == ["qkv.weight", "proj.weight"]
    torch.testing.assert_close(attention(x, plan), self_attention(x, weights_under(attention, ""), HEADS))


@pytest.mark.parametrize("norm", [partial(LayerNorm, eps=1e-5), partial(RmsNorm, eps=1e-5)])
def test_queries_and_keys_are_normalised_in_each_head(norm):
    attention, x, plan = make(qk_norm=norm)
    weights = weights_under(attention, "")

    def normalise(x, which):
        if f"{which}.bias" in weights:
            return layer_norm(x, weights[f"{which}.weight"], weights[f"{which}.bias"], 1e-5)
        return x / torch.sqrt((x**2).sum(-1, keepdim=True) / (DIM // HEADS) + 1e-5) * weights[f"{which}.weight"]

    expected = self_attention(x, weights, HEADS, qk=lambda q, k: (normalise(q, "query_norm"), normalise(k, "key_norm")))
    torch.testing.assert_close(attention(x, plan), expected)


def test_rotated_queries_and_keys_leave_the_values_as_they_are():
    attention, x, plan = make()
    rotary, places = RotaryPosition(DIM // HEADS, axes=1, max_period=50.0), torch.tensor([0, 4, 1, 7, 2])
    plan = AttentionPlan(plan.packing, rotate=partial(rotary, angles=rotary.angles(places[:, None])))

    def turn(x):
        turned = []
        for place, (a, b, c, d) in zip(places.tolist(), x, strict=True):  # channel i is paired with i + 2
            slow, fast = torch.tensor(place * 50.0**-0.5), torch.tensor(place * 1.0)
            turned.append(
                [
                    a * fast.cos() - c * fast.sin(),
                    b * slow.cos() - d * slow.sin(),
                    a * fast.sin() + c * fast.cos(),
                    b * slow.sin() + d * slow.cos(),
                ]
            )
        return torch.tensor(turned, dtype=torch.float64)

    expected = self_attention(x, weights_under(attention, ""), HEADS, qk=lambda q, k: (turn(q.detach()), turn(k.detach())))
    torch.testing.assert_close(attention(x, plan), expected, atol=1e-5, rtol=1e-5)


def test_dropout_drops_attention_weights_in_training_alone():
    attention, x, plan = make(dropout=0.5)
    assert torch.equal(attention.eval()(x, plan), attention(x, plan))
    torch.manual_seed(0)
    mean = torch.stack([attention.train()(x, plan) for _ in range(2000)]).mean(0)
    assert not torch.allclose(attention(x, plan), attention.eval()(x, plan))
    torch.testing.assert_close(mean, attention.eval()(x, plan), atol=0.15, rtol=0.1)


def test_a_dropout_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\), got 1.0"):
        Attention(8, 2, dropout=1.0)
