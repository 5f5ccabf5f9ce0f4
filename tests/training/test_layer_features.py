"""Features of several layers in one pass."""

import pytest
import torch

from multimodal.nn import Encoder
from multimodal.training.layer_features import InputTokens, chosen_layers, encode_layers, parse_layers, vector_width, vectors_of

SEQUENCE = torch.tensor([0, 2, 0, 1, 1, 1, 2])


def make(**settings) -> Encoder:
    torch.manual_seed(0)
    return Encoder(dim=8, depth=3, num_heads=2, **settings).eval()


@pytest.fixture
def part():
    generator = torch.Generator().manual_seed(0)
    return InputTokens(torch.randn(7, 8, generator=generator), SEQUENCE, torch.zeros(7, 1))


def by_hand(encoder: Encoder, tokens: torch.Tensor) -> list[torch.Tensor]:
    """All tokens of one sequence after each layer, the class token first, and after the norm; layers are run one by one."""
    seen: list[torch.Tensor] = []
    hooks = [block.register_forward_hook(lambda module, inputs, output: seen.append(output)) for block in encoder.blocks]
    out = encoder(tokens, torch.zeros(len(tokens), dtype=torch.int64))
    for hook in hooks:
        hook.remove()
    return [*seen, torch.cat([out.class_token, out.tokens]) if out.class_token is not None else out.tokens]


@pytest.mark.parametrize("class_token", [True, False])
def test_layers_are_those_of_each_sequence_alone(part, class_token):
    encoder = make(class_token=class_token)
    layers = chosen_layers(encoder, "all")
    assert layers == [0, 1, 2, "out"]
    encoded = encode_layers(encoder, [part], layers)
    for number in range(3):
        for layer, expected in zip(layers, by_hand(encoder, part.vectors[number == SEQUENCE]), strict=True):
            first = int(class_token)
            torch.testing.assert_close(encoded[layer].tokens[number == SEQUENCE], expected[first:])
            both = vectors_of(encoded[layer], SEQUENCE, 4, "class_and_mean")
            assert both.shape == (4, vector_width(encoder, "class_and_mean")) and (both[3] == 0).all()
            torch.testing.assert_close(both[number], torch.cat([*expected[:first], expected[first:].mean(0)]))


def test_the_output_is_normalised_and_the_last_layer_is_not(part):
    encoder = make()
    encoded = encode_layers(encoder, [part], [2, "out"])
    torch.testing.assert_close(encoder.norm(encoded[2].tokens), encoded["out"].tokens)
    assert not torch.allclose(encoded[2].tokens, encoded["out"].tokens)


def test_parts_of_one_sample_see_each_other():
    encoder, x, y = make(), torch.randn(2, 8), torch.randn(3, 8)
    zero = torch.zeros(2, dtype=torch.int64)
    parts = [InputTokens(x, zero, torch.zeros(2, 1)), InputTokens(y, torch.zeros(3, dtype=torch.int64), torch.ones(3, 2))]
    found = encode_layers(encoder, parts, ["out"])["out"].tokens
    torch.testing.assert_close(found, encoder(torch.cat([x, y]), torch.zeros(5, dtype=torch.int64)).tokens)


def test_layers_are_named_from_both_ends():
    encoder = make()
    assert chosen_layers(encoder, [-1, 0, 2, "out"]) == [0, 2, "out"]
    assert chosen_layers(make(norm_at="none"), "all") == [0, 1, 2]
    assert parse_layers(["all"]) == "all" and parse_layers(["3", "-1", "out"]) == [3, -1, "out"]
    for wrong in ([3], [-4], []):
        with pytest.raises(ValueError, match="layers must be 'all' or some of -3 to 2 and 'out'"):
            chosen_layers(encoder, wrong)
    with pytest.raises(ValueError, match="layers must be 'all', or numbers and 'out', got '3 all'"):
        parse_layers(["3", "all"])


def test_vectors_that_are_not_there_are_refused(part):
    encoded = encode_layers(make(), [part], ["out"])["out"]
    with pytest.raises(ValueError, match="pool 'class' needs an encoder with a class token"):
        vectors_of(encoded, SEQUENCE, 3, "class")
