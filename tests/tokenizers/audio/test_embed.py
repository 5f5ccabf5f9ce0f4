"""Patches of spectrograms: where they lie, in which order, and that no item touches another."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from multimodal.masking import RandomMasking
from multimodal.nn import LayerNorm, LearnedPosition
from multimodal.recorded import build, settings_of
from multimodal.tokenizers.audio import NormedProjection, SpectrogramEmbed
from multimodal.tokenizers.audio.patches import cut_patches


def spectrograms(*frames: int, bins: int = 32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, bins, generator=generator) for count in frames]


def test_ten_seconds_make_496_tokens_time_by_time():
    tokens = cut_patches(torch.zeros(1, 998, 128), None, (16, 16), (16, 16))
    assert tokens.grid == (62, 8) and tokens.lengths.tolist() == [496]
    assert tokens.coordinates[:10].tolist() == [[0, f] for f in range(8)] + [[1, 0], [1, 1]]


@given(
    lengths=st.lists(st.integers(4, 30), min_size=1, max_size=5),
    bins=st.integers(4, 20),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    frequency_first=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_patch_is_where_its_coordinates_say(lengths, bins, size, stride, frequency_first):
    items = spectrograms(*lengths, bins=bins)
    tokens = cut_patches(torch.cat(items), torch.tensor(lengths), size, stride, frequency_first)
    rows, bands = [(length - size[0]) // stride[0] + 1 for length in lengths], (bins - size[1]) // stride[1] + 1
    assert tokens.lengths.tolist() == [count * bands for count in rows]
    for patch, item, place in zip(tokens.inputs, tokens.item.tolist(), tokens.coordinates.tolist(), strict=True):
        t, f = place[::-1] if frequency_first else place
        t, f = t * stride[0], f * stride[1]
        assert torch.equal(patch.view(size), items[item][t : t + size[0], f : f + size[1]])
    places = [[*place, item] for item, place in zip(tokens.item.tolist(), tokens.coordinates.tolist(), strict=True)]
    assert places == sorted(places, key=lambda place: (place[2], place[0], place[1]))


@pytest.mark.parametrize("frequency_first", [False, True])
def test_items_of_one_length_are_cut_alike_in_both_layouts(frequency_first):
    items = torch.stack(spectrograms(40, 40, 40))
    dense = cut_patches(items, None, (16, 16), (10, 10), frequency_first)
    ragged = cut_patches(items.flatten(0, 1), torch.tensor([40] * 3), (16, 16), (10, 10), frequency_first)
    assert torch.equal(dense.inputs, ragged.inputs) and torch.equal(dense.coordinates, ragged.coordinates)
    assert torch.equal(dense.lengths, ragged.lengths) and dense.grid == ((2, 3) if frequency_first else (3, 2))


def test_patches_are_a_convolution():
    embed, values = SpectrogramEmbed(8, mean=1.0, std=2.0, position=None), torch.stack(spectrograms(40, 40))
    weight = embed.proj.weight.view(8, 1, 16, 16)
    expected = F.conv2d((values[:, None] - 1) / 2, weight, embed.proj.bias, stride=16).flatten(2).transpose(1, 2)
    assert torch.allclose(embed(embed.tokens(values)).view(2, 4, 8), expected, atol=1e-5)


def test_two_numbers_make_tokens_of_whole_frames():
    embed, values = SpectrogramEmbed(8, [1, 32], mean=0.0, std=1.0, position=None), torch.cat(spectrograms(5, 3))
    tokens = embed.tokens(values, torch.tensor([5, 3]))
    assert torch.equal(tokens.inputs, values) and embed.input_size == 32
    assert tokens.coordinates.tolist() == [[t, 0] for t in (0, 1, 2, 3, 4, 0, 1, 2)]
    assert settings_of(embed)["init_args"]["patch_size"] == [1, 32]


@pytest.mark.parametrize("size", [0, [16], [16, 0], [4, 4, 4]])
def test_patches_without_a_shape_are_refused(size):
    with pytest.raises(ValueError, match="patch_size"):
        SpectrogramEmbed(8, size)


def test_the_projection_of_beats_norms_between_two_layers():
    projection = NormedProjection(256, 8, hidden_dim=12)
    x = torch.randn(5, 256)
    assert torch.allclose(projection(x), projection.out(F.layer_norm(x @ projection.patch.weight.T, (12,))), atol=1e-6)
    assert projection.patch.bias is None
    assert not list(NormedProjection(256, 8, hidden_dim=8).out.parameters())


def test_the_mask_hides_the_patch_and_keeps_its_place():
    embed = SpectrogramEmbed(8, position=lambda dim: LearnedPosition(dim, (4, 2)))
    tokens = embed.tokens(torch.stack(spectrograms(40)))
    hidden = RandomMasking(0.5)(tokens, torch.tensor([3]))
    x = embed(tokens, hidden)
    assert torch.allclose(x[hidden], embed.mask_token + embed.position(tokens.coordinates)[hidden])
    assert torch.equal(x[~hidden], embed(tokens)[~hidden]) and 0 < hidden.sum() < len(hidden)


def test_random_inputs_are_other_patches_of_the_same_item():
    embed = SpectrogramEmbed(8)
    tokens = embed.tokens(torch.cat(spectrograms(40, 70)), torch.tensor([40, 70]))
    drawn = embed.random_inputs(tokens, torch.rand(len(tokens.inputs)))
    for row, item in zip(drawn, tokens.item.tolist(), strict=True):
        assert (tokens.inputs[tokens.item == item] == row).all(1).any()


def test_an_embedding_is_built_again_from_its_settings():
    embed = SpectrogramEmbed(dim=8, stride=(10, 12), frequency_first=True, projection=NormedProjection, position=None)
    again = build(settings_of(embed, ("dim",)), 8)
    assert again.stride == (10, 12) and again.frequency_first and isinstance(again.proj, NormedProjection)
    assert isinstance(again.proj.norm, LayerNorm)


def test_what_does_not_fit_is_named():
    embed = SpectrogramEmbed(8)
    with pytest.raises(ValueError, match="an item of 15 frames is smaller than a patch of 16: set min_frames"):
        embed.tokens(torch.zeros(55, 32), torch.tensor([40, 15]))
    with pytest.raises(ValueError, match=r"a spectrogram of \(40, 8\) frames and bins is smaller than a patch of 16"):
        embed.tokens(torch.zeros(1, 40, 8))
    with pytest.raises(ValueError, match=r"spectrograms must be \(items, frames, bins\), or \(frames, bins\) with lengths, got \(40, 32\)"):
        embed.tokens(torch.zeros(40, 32))
    with pytest.raises(ValueError, match=r"std must be positive, got 0\.0"):
        SpectrogramEmbed(8, std=0.0)
    with pytest.raises(ValueError, match=r"the two numbers of stride must be at least 1, got \(0, 10\)"):
        SpectrogramEmbed(8, stride=(0, 10))
