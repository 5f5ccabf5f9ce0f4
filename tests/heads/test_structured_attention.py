"""Structured self-attention as MidiBERT pools with it: against loops over heads and tokens."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from multimodal.heads import ClassificationHead, StructuredAttentionPooling, TaggingHead
from multimodal.nn import Encoded, LayerNorm
from multimodal.recorded import build, settings_of

SEQUENCE = torch.tensor([1, 0, 1, 3, 1, 0, 3, 3, 3])
PUBLISHED = {
    "pooling.inner.weight": (128, 768),
    "pooling.outer.weight": (4, 128),
    "hidden.0.weight": (256, 3072),
    "hidden.0.bias": (256,),
    "proj.weight": (8, 256),
    "proj.bias": (8,),
}


@pytest.fixture
def tokens():
    return torch.randn(len(SEQUENCE), 12, generator=torch.Generator().manual_seed(0)) * 2


def make(**settings) -> StructuredAttentionPooling:
    torch.manual_seed(0)
    pooling = StructuredAttentionPooling(12, **{"hidden_dim": 7, "num_heads": 3, **settings})
    for parameter in pooling.parameters():
        parameter.data.normal_()
    return pooling


def by_loops(pooling: StructuredAttentionPooling, tokens: torch.Tensor) -> torch.Tensor:
    """The pooled vector of one sequence, head by head and token by token, in float64."""
    found = []
    for head in pooling.outer.weight.double():
        scores = [float(head @ torch.tanh(pooling.inner.weight.double() @ token)) for token in tokens.double()]
        total = sum(torch.tensor(scores, dtype=torch.float64).exp())
        found.append(sum(torch.tensor(score).double().exp() / total * token for score, token in zip(scores, tokens.double(), strict=True)))
    return torch.cat(found)


def test_equals_loops_over_each_sequence_alone(tokens):
    pooling = make()
    pooled = pooling(Encoded(tokens, None), SEQUENCE, 5)
    assert pooled.shape == (5, 36)
    for number in (0, 1, 3):
        torch.testing.assert_close(pooled[number].double(), by_loops(pooling, tokens[number == SEQUENCE]), atol=1e-5, rtol=1e-5)
    assert (pooled[[2, 4]] == 0).all()  # no tokens


def test_padding_has_no_weight(tokens):
    pooling, valid = make(), torch.tensor([True, True, False, True, True, True, False, True, True])
    padded = pooling(Encoded(tokens, None), SEQUENCE, 4, valid)
    torch.testing.assert_close(padded, pooling(Encoded(tokens[valid], None), SEQUENCE[valid], 4))
    assert not torch.allclose(padded, pooling(Encoded(tokens, None), SEQUENCE, 4))


def test_the_head_has_the_published_shapes():
    pool = partial(StructuredAttentionPooling, hidden_dim=128, num_heads=4)
    head = ClassificationHead(768, 8, pool=pool, hidden="relu", hidden_dim=256)
    assert {name: tuple(x.shape) for name, x in head.named_parameters()} == PUBLISHED


def test_the_head_is_a_linear_a_relu_and_a_linear_layer_on_the_pooled_vector(tokens):
    torch.manual_seed(1)
    head = ClassificationHead(12, 4, pool=partial(StructuredAttentionPooling, hidden_dim=7), hidden="relu", hidden_dim=5)
    logits = head(Encoded(tokens, None), SEQUENCE, 4)
    first, last = head.hidden[0], head.proj
    inner = F.relu(by_loops(head.pooling, tokens[SEQUENCE == 3]).float() @ first.weight.T + first.bias)
    torch.testing.assert_close(logits[3], inner @ last.weight.T + last.bias, atol=1e-5, rtol=1e-5)


def test_weights_are_a_softmax_in_bfloat16_too(tokens):
    pooling = make()
    exact = pooling(Encoded(tokens, None), SEQUENCE, 4)
    low = pooling.bfloat16()(Encoded(tokens.bfloat16(), None), SEQUENCE, 4)
    assert low.dtype == torch.bfloat16
    assert (low.float() - exact).abs().mean() < 0.05


@pytest.mark.parametrize("kind", [ClassificationHead, TaggingHead])
def test_a_head_with_a_learned_pooling_is_built_again_from_its_settings(tokens, kind):
    head = kind(12, 4, pool=partial(StructuredAttentionPooling, num_heads=2), norm=LayerNorm, hidden="relu", hidden_dim=5).eval()
    again = build(settings_of(head, ("dim",)), 12).eval()
    again.load_state_dict(head.state_dict())
    assert again.norm.weight.shape == (24,) and again.pooling.init_args["num_heads"] == 2
    assert torch.equal(again(Encoded(tokens, None), SEQUENCE, 4), head(Encoded(tokens, None), SEQUENCE, 4))


@pytest.mark.parametrize("settings", [{"hidden_dim": 0}, {"num_heads": 0}])
def test_sizes_below_one_are_refused(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be at least 1, got 0"):
        StructuredAttentionPooling(12, **settings)


@pytest.mark.parametrize("hidden", [None, "relu"])
def test_a_width_of_a_hidden_layer_that_has_none_is_refused(hidden):
    with pytest.raises(ValueError, match="hidden_dim must be at least 1, and has an effect only with a hidden layer"):
        ClassificationHead(12, 4, hidden=hidden, hidden_dim=0 if hidden else 8)
