"""Convolutions over waveforms: how many tokens, and that no item touches another."""

import pytest
import torch

from multimodal.recorded import build, settings_of
from multimodal.tokenizers.audio import WaveformEmbed


def waveforms(*lengths: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, generator=generator) for length in lengths]


def small(**settings) -> WaveformEmbed:
    return WaveformEmbed(12, channels=(8,) * 7, **settings)


@pytest.mark.parametrize(("samples", "tokens"), [(399, 0), (400, 1), (719, 1), (720, 2), (16_000, 49), (160_000, 499)])
def test_a_token_sees_400_samples_and_one_begins_every_320(samples, tokens):
    assert small().num_tokens(samples) == tokens


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_items_of_different_lengths_do_not_touch_each_other(norm):
    embed, items = small(norm=norm), waveforms(800, 1500, 800, 400)
    tokens = embed.tokens(torch.cat(items), torch.tensor([len(x) for x in items]))
    alone = [embed.tokens(x[None]) for x in items]
    assert tokens.lengths.tolist() == [2, 4, 2, 1]
    assert tokens.coordinates[:, 0].tolist() == [0, 1, 0, 1, 2, 3, 0, 1, 0]
    assert torch.allclose(tokens.inputs, torch.cat([x.inputs for x in alone]), atol=1e-5)
    assert torch.allclose(embed(tokens), torch.cat([embed(x) for x in alone]), atol=1e-5)


def test_loudness_and_offset_do_not_matter_after_normalisation():
    values = torch.stack(waveforms(800, 800))
    embed = small(norm="layer")
    assert torch.allclose(embed.tokens(values).inputs, embed.tokens(3 * values + 0.5).inputs, atol=1e-4)
    plain = small(norm="layer", normalize=False)
    assert not torch.allclose(plain.tokens(values).inputs, plain.tokens(values + 0.5).inputs, atol=1e-2)


def test_the_mask_replaces_a_token_after_the_projection():
    embed = small()
    tokens = embed.tokens(torch.stack(waveforms(1500)))
    hidden = torch.tensor([False, True, False, True])
    x = embed(tokens, hidden)
    assert torch.equal(x[hidden], embed.mask_token.expand(2, -1)) and torch.equal(x[~hidden], embed(tokens)[~hidden])


def test_gradients_reach_the_first_convolution():
    embed = small()
    embed(embed.tokens(torch.stack(waveforms(800)))).square().sum().backward()
    assert embed.layers[0].conv.weight.grad.abs().sum() > 0


def test_an_embedding_is_built_again_from_its_settings():
    again = build(settings_of(WaveformEmbed(dim=12, channels=(8,) * 7, norm="layer", bias=True), ("dim",)), 12)
    assert again.layers[3].conv.bias is not None and again.layers[3].kind == "layer"


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="a sound of 399 samples is too short for a token: set min_seconds"):
        small().tokens(torch.zeros(1399), torch.tensor([1000, 399]))
    with pytest.raises(ValueError, match=r"waveforms must be \(items, samples\), or \(samples,\) with lengths, got \(800,\)"):
        small().tokens(torch.zeros(800))
    with pytest.raises(ValueError, match="must have one entry for each convolution, got 2, 7 and 7"):
        WaveformEmbed(12, channels=(8, 8))
