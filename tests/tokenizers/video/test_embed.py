"""Cubes: a strided convolution in time and space, with the mask token put in after it, and positions by number."""

import math

import pytest
import torch
from torch.nn import functional as F

from multimodal.masking import RandomMasking
from multimodal.nn import InterleavedSinCosPosition
from multimodal.recorded import build, settings_of
from multimodal.tokenizers.video import TubeletEmbed


def position(dim: int) -> InterleavedSinCosPosition:
    return InterleavedSinCosPosition(dim, (2, 2, 3))


def make_embed(**options) -> TubeletEmbed:
    torch.manual_seed(0)
    return TubeletEmbed(**{"dim": 8, "tubelet_size": 2, "patch_size": 4, "position": position, **options})


def random_clips(count: int = 2, frames: int = 4, height: int = 8, width: int = 12) -> torch.Tensor:
    return torch.randint(256, (count, frames, 3, height, width), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_equals_a_strided_convolution():
    embed, clips = make_embed(position=None), random_clips()
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    scaled = ((clips / 255 - mean) / std).transpose(1, 2)  # b f c h w -> b c f h w
    convolved = F.conv3d(scaled, embed.proj.weight.view(8, 3, 2, 4, 4), embed.proj.bias, stride=(2, 4, 4))
    expected = convolved.flatten(2).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(embed(embed.tokens(clips)), expected, atol=1e-5, rtol=1e-4)


def test_cubes_lie_by_time_then_row_by_row():
    tokens = make_embed().tokens(random_clips())
    assert tokens.grid == (2, 2, 3) and tokens.lengths.tolist() == [12, 12]
    assert tokens.coordinates[:4].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0]]
    assert tokens.coordinates[12 + 6].tolist() == [1, 0, 0]
    cube = tokens.inputs[12 + 6 + 4].view(3, 2, 4, 4)  # second clip, second time, row 1, column 1
    assert torch.equal(cube, random_clips()[1, 2:4, :, 4:8, 4:8].transpose(0, 1))


def test_the_position_is_that_of_the_number_of_the_cube():
    embed = make_embed()
    tokens = embed.tokens(random_clips(1))
    added = embed(tokens) - make_embed(position=None)(tokens)
    for number in (0, 1, 7, 11):
        for channel in range(8):
            angle = number / 10_000 ** (2 * (channel // 2) / 8)
            assert added[number, channel].item() == pytest.approx(math.cos(angle) if channel % 2 else math.sin(angle), abs=1e-5)


def test_the_mask_hides_the_cube_and_keeps_its_position():
    embed = make_embed()
    tokens = embed.tokens(random_clips())
    hidden = RandomMasking(0.5)(tokens, torch.arange(2))
    assert hidden.view(2, 12).sum(1).tolist() == [6, 6]
    shown, plain = embed(tokens, hidden), embed(tokens)
    assert torch.equal(shown[hidden], embed.mask_token + embed.position(tokens.coordinates[hidden]))
    assert torch.equal(shown[~hidden], plain[~hidden])


def test_random_inputs_come_from_the_same_clip():
    embed = make_embed()
    tokens = embed.tokens(torch.stack([torch.full((4, 3, 8, 12), 10), torch.full((4, 3, 8, 12), 200)]).to(torch.uint8))
    drawn = embed.random_inputs(tokens, torch.rand(24, generator=torch.Generator().manual_seed(0)))
    assert (drawn[:12] == 10).all() and (drawn[12:] == 200).all()


def test_the_default_is_videomae():
    embed = TubeletEmbed(16)
    assert embed.tokens(torch.zeros(1, 16, 3, 224, 224, dtype=torch.uint8)).grid == (8, 14, 14)
    assert embed.position.size == (8, 14, 14)


def test_it_is_built_again_from_its_settings():
    embed = TubeletEmbed(dim=8, patch_size=8, mean=(0.5,), std=(0.5,))
    again = build(settings_of(embed, ("dim",)), 8)
    assert torch.equal(again.mean, embed.mean) and again.position.size == (8, 14, 14)


@pytest.mark.parametrize(("shape", "options"), [((1, 3, 3, 8, 8), {}), ((1, 4, 3, 8, 9), {}), ((1, 4, 3, 6, 8), {}), ((1, 4, 1, 8, 8), {})])
def test_clips_that_cannot_be_cut_are_refused(shape, options):
    with pytest.raises(ValueError, match=r"cannot be cut into cubes of 2 frames of 3 x 4 x 4"):
        make_embed(**options).tokens(torch.zeros(shape, dtype=torch.uint8))


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 0 and 4"):
        make_embed(tubelet_size=0)


def test_a_cube_says_how_many_values_it_has():
    embed = make_embed()
    assert embed.input_size == embed.tokens(torch.zeros(1, 4, 3, 8, 12, dtype=torch.uint8)).inputs.shape[1] == 96


def test_several_views_are_refused():
    with pytest.raises(ValueError, match=r"clips have 5 axes, got \(2, 5, 4, 3, 8, 12\): several views"):
        make_embed().tokens(torch.zeros(2, 5, 4, 3, 8, 12, dtype=torch.uint8))
