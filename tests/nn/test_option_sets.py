"""What holds for an encoder with any options."""

import copy
import json
import pickle
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.nn import Encoded, Encoder
from multimodal.recorded import build, settings_of
from tests.nn.option_sets import OPTION_SETS, SIZES, make, places

each_option_set = pytest.mark.parametrize("name", OPTION_SETS)
lengths_strategy = st.lists(st.integers(1, 9), min_size=1, max_size=5)
few = settings(max_examples=8, deadline=None)
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


class Input(NamedTuple):
    tokens: torch.Tensor
    sequence: torch.Tensor
    coordinates: torch.Tensor
    expert: torch.Tensor

    def of(self, chosen: torch.Tensor) -> "Input":
        return Input(*(part[chosen] for part in self))

    def alone(self, number: int) -> "Input":
        own = self.of(self.sequence == number)
        return own._replace(sequence=torch.zeros_like(own.sequence))


def draw(lengths: list[int], seed: int = 0, num_experts: int = 1) -> Input:
    torch.manual_seed(seed)
    sequence = torch.repeat_interleave(torch.tensor(lengths))
    coordinates = torch.cat([places(length) for length in lengths])
    return Input(torch.randn(len(sequence), SIZES["dim"]), sequence, coordinates, torch.randint(num_experts, (len(sequence),)))


def run(encoder: Encoder, given: Input) -> Encoded:
    return encoder(given.tokens, given.sequence, given.coordinates, given.expert)


def special_of(encoded: Encoded, number: int) -> list[torch.Tensor]:
    return [part[number] for part in (encoded.class_token, encoded.registers) if part is not None]


@each_option_set
@few
@given(lengths=lengths_strategy, seed=st.integers(0, 1000))
def test_a_sequence_is_encoded_as_if_it_were_alone(name, lengths, seed):
    encoder = make(name)
    together = draw(lengths, seed, encoder.num_experts)
    encoded = run(encoder, together)
    for number in range(len(lengths)):
        alone = run(encoder, together.alone(number))
        torch.testing.assert_close(encoded.tokens[together.sequence == number], alone.tokens, **CLOSE)
        for ours, its in zip(special_of(encoded, number), special_of(alone, 0), strict=True):
            torch.testing.assert_close(ours, its, **CLOSE)


@each_option_set
@few
@given(lengths=lengths_strategy, seed=st.integers(0, 1000), only=st.integers(0, 1))
def test_the_dense_encoder_gives_what_the_packed_one_gives(name, lengths, seed, only):
    encoder = make(name)
    expert = min(only, encoder.num_experts - 1)
    together = draw(lengths, seed)
    together = together._replace(expert=torch.full_like(together.sequence, expert))
    encoded = run(encoder, together)
    for number in range(len(lengths)):
        alone = together.alone(number)
        dense, _ = encoder.forward_dense(alone.tokens[None], alone.coordinates, expert=expert)
        special = torch.cat([part.view(-1, SIZES["dim"]) for part in special_of(encoded, number)] or [alone.tokens[:0]])
        special = special if expert == 0 else special[:0]
        torch.testing.assert_close(dense[0], torch.cat([special, encoded.tokens[together.sequence == number]]), **CLOSE)


@each_option_set
def test_padding_of_the_dense_encoder_changes_nothing(name):
    encoder = make(name)
    tokens, _, coordinates, _ = draw([8])
    padded = torch.stack([tokens, torch.cat([tokens[:5], torch.full((3, SIZES["dim"]), 9.0)])])
    valid = torch.arange(8) < torch.tensor([[8], [5]])
    encoded, layers = encoder.forward_dense(padded, coordinates, valid, indices=(0, 2))
    alone, its_layers = encoder.forward_dense(tokens[None, :5], coordinates[:5], indices=(0, 2))
    assert encoded.isfinite().all()
    for ours, its in zip([encoded, *layers], [alone, *its_layers], strict=True):
        torch.testing.assert_close(ours[1, : its.shape[1]], its[0], **CLOSE)


@each_option_set
@few
@given(lengths=lengths_strategy, seed=st.integers(0, 1000), share=st.sampled_from([0.0, 0.3, 1.0]))
def test_the_tokens_that_are_wanted_are_those_of_all(name, lengths, seed, share):
    encoder = make(name)
    given = draw(lengths, seed, encoder.num_experts)
    order = torch.randperm(len(given.tokens))
    given, wanted = given.of(order), torch.rand(len(order)) < share
    encoded = run(encoder, given)
    some = encoder(*given, wanted=wanted)
    torch.testing.assert_close(some.tokens, encoded.tokens[wanted], **CLOSE)
    for mine, its in zip(some[1:], encoded[1:], strict=True):
        assert mine is its is None or torch.allclose(mine, its, atol=2e-5, rtol=1e-4)
    last = (encoder.depth - 1,)
    kept, (layer,) = encoder.forward_intermediates(given.tokens, given.sequence, given.coordinates, last, given.expert, wanted)
    assert len(layer) == len(order)
    torch.testing.assert_close(kept.tokens, some.tokens, **CLOSE)
    _, (own,) = encoder.forward_layers(given.tokens, given.sequence, given.coordinates, last, given.expert, wanted)
    torch.testing.assert_close(own.tokens, layer[wanted], **CLOSE)


@each_option_set
def test_sequences_may_lie_in_any_order(name):
    encoder = make(name)
    given = draw([4, 7, 4, 1], num_experts=encoder.num_experts)
    expected = run(encoder, given)
    number = torch.tensor([2, 0, 3, 1])  # new number of each sequence
    mixed = torch.rand(len(given.tokens)).argsort()
    mixed = mixed[given.sequence[mixed].argsort(stable=True)]  # tokens of a sequence keep their order: it can carry meaning
    interleaved = torch.cat([(given.sequence == s).nonzero()[:, 0] for s in (3, 1, 0, 2)])
    shuffled = run(encoder, given._replace(sequence=number[given.sequence]).of(interleaved))
    torch.testing.assert_close(shuffled.tokens, expected.tokens[interleaved], **CLOSE)
    for s in range(4):
        for ours, its in zip(special_of(shuffled, int(number[s])), special_of(expected, s), strict=True):
            torch.testing.assert_close(ours, its, **CLOSE)


@each_option_set
def test_activations_may_be_computed_again(name):
    gradients = []
    for again in (False, True):
        encoder = make(name, drop_path=0.3, checkpoint_activations=again).train()
        given = draw([4, 7, 4], num_experts=encoder.num_experts)
        torch.manual_seed(1)
        loss = run(encoder, given).tokens.square().sum()
        loss.backward()
        gradients.append({"loss": loss.detach(), **{key: value.grad for key, value in encoder.named_parameters()}})
    plain, checkpointed = gradients
    for key, value in plain.items():
        torch.testing.assert_close(checkpointed[key], value, msg=key)


@each_option_set
@pytest.mark.parametrize("lengths", [[], [3, 5]])
def test_every_weight_gets_a_gradient(name, lengths):
    encoder = make(name).train()
    given = draw(lengths, num_experts=encoder.num_experts) if lengths else draw([1]).of(torch.zeros(1, dtype=torch.bool))
    encoded = run(encoder, given)
    (encoded.tokens.square().sum() + sum(part.sum() for part in (encoded.class_token, encoded.registers) if part is not None)).backward()
    assert [key for key, value in encoder.named_parameters() if value.grad is None] == []
    assert all(value.grad.isfinite().all() for value in encoder.parameters())
    if not lengths:
        assert all((value.grad == 0).all() for value in encoder.parameters())


@each_option_set
def test_the_settings_build_the_same_encoder_again(name):
    encoder = make(name)
    saved = json.loads(json.dumps(settings_of(encoder)))
    again = build(saved)
    again.load_state_dict(encoder.state_dict())
    assert settings_of(again) == saved
    given = draw([4, 7], num_experts=encoder.num_experts)
    assert torch.equal(run(again.eval(), given).tokens, run(encoder, given).tokens)


@each_option_set
def test_an_encoder_can_be_copied_and_pickled(name):
    encoder = make(name)
    given = draw([4, 7], num_experts=encoder.num_experts)
    expected = run(encoder, given).tokens
    for again in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(run(again, given).tokens, expected)
        assert settings_of(again) == settings_of(encoder)
        again.blocks[0].load_state_dict({key: value + 1 for key, value in again.blocks[0].state_dict().items()})
    assert torch.equal(run(encoder, given).tokens, expected)  # a copy shares nothing


@each_option_set
def test_half_the_precision_gives_nearly_the_same(name):
    encoder = make(name)
    given = draw([9, 9, 4], num_experts=encoder.num_experts)
    expected = run(encoder, given).tokens
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = run(encoder, given).tokens
    assert (half.float() - expected).abs().mean() < 0.03 * expected.abs().mean()
