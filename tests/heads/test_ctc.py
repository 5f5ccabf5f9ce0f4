"""The head of CTC, and how tokens become steps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from multimodal.heads import CtcHead
from multimodal.heads.ctc import time_steps
from multimodal.nn import LayerNorm
from multimodal.recorded import build, settings_of


def test_the_head_is_one_linear_layer_on_normed_steps_with_the_blank_last():
    head, steps = CtcHead(8, 5, norm=LayerNorm), torch.randn(7, 8)
    assert head.blank == 5 and head(steps).shape == (7, 6)
    torch.testing.assert_close(head(steps), F.linear(F.layer_norm(steps, (8,), eps=1e-6), head.proj.weight, head.proj.bias))


def test_dropout_acts_in_training_alone():
    head, steps = CtcHead(8, 5, dropout=0.5), torch.ones(1, 8)
    assert not torch.equal(head(steps), head(steps))
    head.eval()
    assert torch.equal(head(steps), head(steps))


def test_a_head_is_built_again_from_its_settings():
    again = build(settings_of(CtcHead(8, 5, norm=LayerNorm, dropout=0.1), ("dim",)), 16)
    assert again.proj.weight.shape == (6, 16) and isinstance(again.norm, LayerNorm) and again.drop.p == 0.1


def test_a_head_needs_an_id():
    with pytest.raises(ValueError, match="num_ids must be at least 1, got 0"):
        CtcHead(8, 0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=30))
def test_steps_are_means_of_the_tokens_at_one_place_in_the_order_of_time(tokens):
    vectors = torch.arange(2.0 * len(tokens)).view(-1, 2)
    sequence, place = (torch.tensor([token[axis] for token in tokens], dtype=torch.int64) for axis in (0, 1))
    steps, own = time_steps(vectors, sequence, place)
    expected = sorted(set(tokens))
    assert own.tolist() == [number for number, _ in expected]
    for step, where in zip(steps, expected, strict=True):
        mean = vectors[[i for i, token in enumerate(tokens) if token == where]].mean(0)
        torch.testing.assert_close(step, mean)


def test_sums_of_many_tokens_in_bfloat16_keep_their_digits():
    tokens = torch.full((1000, 1), 1.0, dtype=torch.bfloat16)
    steps, _ = time_steps(tokens, torch.zeros(1000, dtype=torch.int64), torch.zeros(1000))
    assert steps.dtype == torch.bfloat16 and steps.tolist() == [[1.0]]
