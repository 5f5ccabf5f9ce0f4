"""What is shown at hidden tokens: nothing at all, or the token without its place."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.masking import Drop, HidePlaces
from multimodal.nn import Encoder, LearnedPosition, RelativeBias2d, RotaryPosition, SinCosPosition2d
from multimodal.protocols import Tokens
from multimodal.tokenizers.image import PatchEmbed


def pictures(count: int = 2) -> torch.Tensor:
    return torch.randint(256, (count, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=6))
def test_what_is_dropped_is_what_is_hidden_but_for_the_first_of_an_item_hidden_as_a_whole(hidden):
    lengths, masked = torch.tensor([len(x) for x in hidden]), torch.tensor([x for own in hidden for x in own])
    tokens = Tokens(torch.arange(len(masked)), lengths, torch.zeros(len(masked), 1))
    embed, seed = PatchEmbed(8, patch_size=4, channels=1), torch.zeros(len(hidden), dtype=torch.int64)
    shown, as_mask, visible = Drop()(embed, tokens, masked, seed)
    assert shown is tokens and not as_mask.any()
    expected = [[not x for x in own] if not all(own) else [True] + [False] * (len(own) - 1) for own in hidden]
    assert visible.tolist() == [x for own in expected for x in own]


def test_hidden_places_are_gone_and_others_are_as_they_were():
    embed = PatchEmbed(8, patch_size=4, channels=1)
    tokens, masked = embed.tokens(pictures()), torch.arange(32) % 3 == 0
    shown, as_mask, visible = HidePlaces()(embed, tokens, masked, torch.zeros(2, dtype=torch.int64))
    assert visible is None and not as_mask.any()
    assert torch.equal(shown.unplaced, masked) and (shown.coordinates[masked] == -1).all()
    assert torch.equal(shown.coordinates[~masked], tokens.coordinates[~masked]) and torch.equal(shown.inputs, tokens.inputs)


@pytest.mark.parametrize("position", [SinCosPosition2d, partial(LearnedPosition, size=(4, 4))])
def test_a_patch_without_a_place_gets_no_position(position):
    embed, bare = PatchEmbed(8, patch_size=4, channels=1, position=position), PatchEmbed(8, patch_size=4, channels=1, position=None)
    bare.load_state_dict({name: x for name, x in embed.state_dict().items() if name in bare.state_dict()})
    tokens, masked = embed.tokens(pictures()), torch.arange(32) % 3 == 0
    made, plain = embed(tokens.without_places(masked)), bare(tokens)
    torch.testing.assert_close(made[masked], plain[masked])
    torch.testing.assert_close(made[~masked], embed(tokens)[~masked])
    assert not torch.allclose(made[~masked], plain[~masked], atol=0.01)


OPTIONS = {
    "bias": {"bias": partial(RelativeBias2d, window=(4, 4)), "class_token": True},
    "bias of each layer": {"bias": partial(RelativeBias2d, window=(4, 4)), "share_bias": False},
    "rotary": {"rotary": RotaryPosition},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_encoder_is_told_nothing_of_a_place_that_is_hidden(name):
    """Tokens without places that change places: their outputs change places too, and no others change."""
    torch.manual_seed(0)
    encoder = Encoder(dim=8, depth=2, num_heads=2, **OPTIONS[name]).eval()
    for parameter in encoder.parameters():
        parameter.data.add_(0.5 * torch.randn_like(parameter))
    embed = PatchEmbed(8, patch_size=4, channels=1, position=None)
    tokens, masked = embed.tokens(pictures(1)), torch.arange(16) % 3 == 0
    unplaced, order = masked.nonzero()[:, 0], torch.arange(16)
    order[unplaced] = unplaced.flip(0)
    sequence = torch.zeros(16, dtype=torch.int64)

    def encode(tokens: Tokens) -> torch.Tensor:
        return encoder(embed(tokens), sequence, tokens.coordinates).tokens

    hidden = tokens.without_places(masked)
    changed = tokens.with_inputs(tokens.inputs[order])
    torch.testing.assert_close(encode(changed.without_places(masked)), encode(hidden)[order], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(encode(changed), encode(tokens)[order], atol=1e-3)  # with their places it matters where they stand
    assert not encoder.reads_order
