"""Heads of several published kinds, against what they are said to compute."""

import pytest
import torch
from torch.nn import functional as F

from multimodal.heads import ClassificationHead, pool
from multimodal.nn import Encoded, LayerNorm

SEQUENCE = torch.tensor([0, 1, 0, 1, 1])


def encoded() -> Encoded:
    generator = torch.Generator().manual_seed(0)
    tokens, first, registers = (torch.randn(*shape, generator=generator) for shape in ((5, 8), (2, 8), (2, 1, 8)))
    return Encoded(tokens, first, registers)


@pytest.mark.parametrize("how", ["mean", "class", "first", "special"])
def test_a_head_is_one_linear_layer_on_the_normed_pooled_tokens(how):
    head = ClassificationHead(8, 3, pool=how, norm=LayerNorm)
    expected = F.linear(F.layer_norm(pool(encoded(), SEQUENCE, 2, how), (8,), eps=1e-6), head.proj.weight, head.proj.bias)
    torch.testing.assert_close(head(encoded(), SEQUENCE, 2), expected)


def test_a_hidden_layer_comes_before_the_classes():
    head = ClassificationHead(8, 3, pool="first", hidden="tanh")
    inner = torch.tanh(head.hidden[0](encoded().tokens[:2]))  # the first tokens of the two sequences
    torch.testing.assert_close(head(encoded(), SEQUENCE, 2), head.proj(inner))


def test_first_weights_may_be_scaled():
    torch.manual_seed(0)
    plain = ClassificationHead(8, 3)
    torch.manual_seed(0)
    small = ClassificationHead(8, 3, init_scale=0.001)
    torch.testing.assert_close(small.proj.weight, 0.001 * plain.proj.weight)
    assert (plain.proj.weight != 0).all()


def test_dropout_acts_in_training_alone():
    head = ClassificationHead(8, 3, dropout=0.5)
    assert not torch.equal(head(encoded(), SEQUENCE, 2), head(encoded(), SEQUENCE, 2))
    head.eval()
    assert torch.equal(head(encoded(), SEQUENCE, 2), head(encoded(), SEQUENCE, 2))


def test_padding_does_not_count():
    valid = torch.tensor([True, True, True, False, True])
    head, kept = ClassificationHead(8, 3), encoded()
    without = Encoded(kept.tokens[valid], kept.class_token)
    torch.testing.assert_close(head(kept, SEQUENCE, 2, valid), head(without, SEQUENCE[valid], 2))


def test_a_head_needs_a_class():
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        ClassificationHead(8, 0)
