"""How weights start, against the statistics of the distributions that the papers' code names."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from multimodal.nn import Decoder, DeepNormBlock, Encoder, LayerNorm, PostNormBlock, PredictionHead, RegressionHead, initialize_linear
from multimodal.recorded import build, settings_of
from multimodal.tokenizers.image import PatchEmbed

DIM, DEPTH = 128, 3
CLIPPED = 0.02 * math.sqrt(1 - 2 * math.exp(-0.5) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(0.5)))
"""Deviation of a normal distribution of deviation 0.02 that is cut at one deviation."""
BEYOND_ONE = 1 - math.erf(math.sqrt(0.5))


def make(**settings) -> Encoder:
    torch.manual_seed(0)
    return Encoder(DIM, DEPTH, 2, class_token=True, **settings)


def xavier_bound(weight: torch.Tensor) -> float:
    return math.sqrt(6 / sum(weight.shape))


def ends(encoder: Encoder, number: int) -> list[torch.Tensor]:
    """What ends the two branches of layer ``number``, from 1."""
    block = encoder.blocks[number - 1]
    return [block.attn.proj.weight, block.mlp.fc2.weight]


def starts(encoder: Encoder, number: int) -> list[torch.Tensor]:
    block = encoder.blocks[number - 1]
    return [block.attn.qkv.weight, block.mlp.fc1.weight]


def is_xavier(weight: torch.Tensor) -> bool:
    bound = xavier_bound(weight)
    spread = weight.std().item() * math.sqrt(3) / bound  # of a uniform distribution: 1
    return weight.abs().max().item() <= bound and weight.abs().max().item() > 0.99 * bound and abs(spread - 1) < 0.02


@pytest.mark.parametrize("number", range(1, DEPTH + 1))
def test_beits_pretraining_cuts_at_one_deviation_and_shrinks_with_depth(number):
    encoder = make(first_weights="clipped_normal")
    for weight in starts(encoder, number):
        assert weight.abs().max() <= 0.02 and weight.std().item() == pytest.approx(CLIPPED, rel=0.02)
    for weight in ends(encoder, number):
        assert weight.std().item() == pytest.approx(CLIPPED / math.sqrt(2 * number), rel=0.02)
        assert weight.abs().max() <= 0.02 / math.sqrt(2 * number)
    assert encoder.special.tokens.abs().max() <= 0.02


@pytest.mark.parametrize("number", range(1, DEPTH + 1))
def test_without_a_setting_nothing_is_cut(number):
    encoder = make()
    for weight in starts(encoder, number):
        assert weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert (weight.abs() > 0.02).double().mean().item() == pytest.approx(BEYOND_ONE, rel=0.05)
    for weight in ends(encoder, number):
        assert weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * number), rel=0.02)


@pytest.mark.parametrize("number", range(1, DEPTH + 1))
def test_mae_draws_from_xaviers_distribution_at_any_depth(number):
    encoder = make(first_weights="xavier_uniform")
    assert all(is_xavier(weight) for weight in [*starts(encoder, number), *ends(encoder, number)])
    assert encoder.special.tokens.std().item() == pytest.approx(0.02, rel=0.2)  # the class token stays normal


def test_a_new_layer_starts_like_the_layer_that_it_stands_for():
    layer = make(first_weights="xavier_uniform").new_layer(1)
    assert is_xavier(layer.attn.proj.weight)
    clipped = make(first_weights="clipped_normal").new_layer(1)
    assert clipped.mlp.fc2.weight.std().item() == pytest.approx(CLIPPED / 2, rel=0.02)


def test_decoder_heads_and_patches_start_as_they_are_told():
    torch.manual_seed(0)
    decoder = Decoder(DIM, 96, 2, 2, first_weights="xavier_uniform")
    assert is_xavier(decoder.proj.weight) and is_xavier(decoder.layers.blocks[1].mlp.fc2.weight)
    assert is_xavier(RegressionHead(DIM, (300,), first_weights="xavier_uniform").proj.weight)
    head = PredictionHead(DIM, (300,), norm=LayerNorm, first_weights="clipped_normal")
    assert max(weight.abs().max() for weight in (head.proj.weight, head.hidden[0].weight)) <= 0.02
    embed = PatchEmbed(DIM, 8, first_weights="clipped_normal")
    assert embed.proj.weight.std().item() == pytest.approx(CLIPPED, rel=0.02) and embed.mask_token.abs().max() <= 0.02
    assert is_xavier(PatchEmbed(DIM, 8).proj.weight)


@pytest.mark.parametrize("first_weights", ["normal", "clipped_normal", "xavier_uniform"])
def test_biases_are_zero_and_norms_stay(first_weights):
    norm = nn.LayerNorm(4)
    initialize_linear(norm, first_weights)
    assert (norm.weight == 1).all()
    encoder = make(first_weights=first_weights)
    assert all(not bias.any() for name, bias in encoder.named_parameters() if name.endswith("bias"))


def test_settings_are_kept_and_those_saved_without_it_still_build():
    encoder = make(first_weights="clipped_normal")
    saved = settings_of(encoder)
    assert build(saved).init_args["first_weights"] == "clipped_normal"
    torch.manual_seed(0)
    old = build({**saved, "init_args": {name: value for name, value in saved["init_args"].items() if name != "first_weights"}})
    assert all(torch.equal(a, b) for a, b in zip(old.parameters(), make().parameters(), strict=True))


def test_post_norm_layers_take_it_without_shrinking_and_deep_norm_layers_refuse_it():
    block = make(block=PostNormBlock, norm_at="none", first_weights="clipped_normal").blocks[2]
    assert block.attn.proj.weight.std().item() == pytest.approx(CLIPPED, rel=0.02)
    with pytest.raises(ValueError, match="first_weights 'xavier_uniform' has no effect: a DeepNormBlock has its own"):
        make(block=DeepNormBlock, first_weights="xavier_uniform")


def test_an_unknown_word_is_refused(unchecked):
    for builder in (make, partial(RegressionHead, 4, (4,)), partial(PatchEmbed, 8, 4)):
        with pytest.raises(ValueError, match="first_weights must be one of normal, clipped_normal, xavier_uniform, got 'zeros'"):
            builder(first_weights="zeros")
