"""Packed attention equals attention over each sequence by itself."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from multimodal.nn import Attention, AttentionPlan, Encoder, Packing, pool_mean
from multimodal.nn.kernels import attend

lengths_strategy = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def sequence_of(lengths: list[int]) -> torch.Tensor:
    return torch.repeat_interleave(torch.tensor(lengths))


@settings(max_examples=50, deadline=None)
@given(lengths_strategy, st.integers(0, 2**31))
def test_attend_equals_attention_on_each_sequence(lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    sequence = sequence_of(lengths)[torch.randperm(sum(lengths), generator=generator)]
    packing = Packing.from_sequence(sequence)
    q, k, v = torch.randn(3, len(sequence), 2, 4, generator=generator)
    mixed = packing.unpack(attend(packing.pack(q), packing.pack(k), packing.pack(v), AttentionPlan(packing)))
    for number in range(len(lengths)):
        own = sequence == number
        alone = [x[own].transpose(0, 1) for x in (q, k, v)]  # n h e -> h n e
        expected = F.scaled_dot_product_attention(*alone).transpose(0, 1)
        torch.testing.assert_close(mixed[own], expected, atol=1e-5, rtol=1e-4)


@given(lengths_strategy)
def test_plan_spends_nothing_on_padding(lengths):
    packing = Packing.from_sequence(sequence_of(lengths))
    assert sum(count * length for count, length in packing.groups) == sum(lengths)
    assert len(packing.groups) == len(set(lengths))


@settings(max_examples=20, deadline=None)
@given(lengths_strategy, st.booleans(), st.integers(0, 1000))
def test_a_sequence_is_encoded_the_same_in_any_batch(lengths, class_token, seed):
    torch.manual_seed(seed)
    encoder = Encoder(dim=16, depth=2, num_heads=2, class_token=class_token)
    sequence, tokens = sequence_of(lengths), torch.randn(sum(lengths), 16)
    order = torch.randperm(len(sequence))
    together = encoder(tokens[order], sequence[order]).tokens[order.argsort()]
    last = sequence == len(lengths) - 1
    alone = encoder(tokens[last], torch.zeros(int(last.sum()), dtype=torch.int64)).tokens
    # the order within a sequence carries no meaning either: positions are in the tokens
    torch.testing.assert_close(together[last], alone, atol=1e-5, rtol=1e-4)


def test_sequences_without_tokens_are_allowed():
    encoder = Encoder(dim=16, depth=1, num_heads=2, class_token=True)
    encoded = encoder(torch.randn(3, 16), torch.tensor([0, 2, 2]))
    assert encoded.tokens.shape == (3, 16)
    assert encoded.class_token.shape == (3, 16)


def test_intermediates_are_the_states_between_layers():
    encoder = Encoder(dim=16, depth=3, num_heads=2).eval()
    tokens, sequence = torch.randn(7, 16), sequence_of([3, 4])
    encoded, layers = encoder.forward_intermediates(tokens, sequence, indices=(0, 2))
    assert len(layers) == 2
    torch.testing.assert_close(encoder.norm(layers[1]), encoded.tokens)


def test_query_value_bias_leaves_the_key_without_bias():
    encoder = Encoder(dim=16, depth=1, num_heads=2, attention=partial(Attention, bias="query_value"))
    names = dict(encoder.named_parameters())
    assert "blocks.0.attn.qkv.bias" not in names
    assert names["blocks.0.attn.query_value_bias"].shape == (2, 16)
    encoder.blocks[0].attn.query_value_bias.data.fill_(1.0)
    q, k, v = encoder.blocks[0].attn.project(torch.zeros(1, 16))
    assert (q == 1).all() and (k == 0).all() and (v == 1).all()


def test_branch_outputs_start_smaller_in_deep_layers():
    torch.manual_seed(0)
    encoder = Encoder(dim=64, depth=8, num_heads=2)
    first, last = (encoder.blocks[i].mlp.fc2.weight.std() for i in (0, 7))
    assert (first / last).item() == pytest.approx(8**0.5, rel=0.05)


def test_drop_path_drops_whole_sequences_and_keeps_the_mean():
    from multimodal.nn import DropPath

    torch.manual_seed(0)
    packing = Packing.from_sequence(sequence_of([3] * 4000))
    dropped = DropPath(0.25).train()(torch.ones(12000, 1), packing).view(4000, 3)
    assert ((dropped == 0).all(1) | (dropped == 1 / 0.75).all(1)).all()
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.03)


def test_mean_pooling_by_sequence():
    pooled = pool_mean(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 2]), 3)
    assert pooled.tolist() == [[2.0], [0.0], [5.0]]


def test_width_must_fit_the_heads():
    with pytest.raises(ValueError, match="dim 10 and num_heads 3"):
        Encoder(dim=10, num_heads=3)
