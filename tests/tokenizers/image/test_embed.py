"""Patches: a strided convolution, with the mask token put in after it."""

import pytest
import torch
from torch.nn import functional as F

from multimodal.tokenizers.image import PatchEmbed


def make_embed(**settings) -> PatchEmbed:
    torch.manual_seed(0)
    return PatchEmbed(**{"dim": 8, "patch_size": 4, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)} | settings)


def random_images(count: int = 2, height: int = 8, width: int = 12, channels: int = 3) -> torch.Tensor:
    return torch.randint(256, (count, channels, height, width), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_equals_a_strided_convolution():
    embed, images = make_embed(), random_images()
    tokens = embed.tokens(images, None)
    scaled = (images / 255 - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    convolved = F.conv2d(scaled, embed.proj.weight.view(8, 3, 4, 4), embed.proj.bias, stride=4)
    expected = convolved.flatten(2).transpose(1, 2).flatten(0, 1)  # b d h w -> (b h w) d
    torch.testing.assert_close(embed(tokens) - embed.position(tokens.coordinates), expected, atol=1e-5, rtol=1e-4)


def test_patches_lie_row_by_row_with_their_coordinates():
    tokens = make_embed().tokens(random_images(), None)
    assert tokens.grid == (2, 3) and tokens.lengths.tolist() == [6, 6]
    assert tokens.coordinates[:6].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert torch.equal(tokens.coordinates[:6], tokens.coordinates[6:])
    assert torch.equal(tokens.inputs[6 + 4].view(3, 4, 4), random_images()[1, :, 4:8, 4:8])  # row 1, column 1 of the second image


def test_the_mask_hides_the_patch_and_keeps_its_position():
    embed = make_embed()
    tokens = embed.tokens(random_images(), None)
    hidden = torch.zeros(12, dtype=torch.bool)
    hidden[[1, 4, 10]] = True
    shown, plain = embed(tokens, hidden), embed(tokens)
    assert torch.equal(shown[hidden], embed.mask_token + embed.position(tokens.coordinates[hidden]))
    assert torch.equal(shown[~hidden], plain[~hidden])
    other = embed(tokens.with_inputs(255 - tokens.inputs), hidden)
    assert torch.equal(other[hidden], shown[hidden])  # nothing of the patch is left
    assert not torch.allclose(shown[1], shown[4])  # but where it lies


def test_one_mean_holds_for_all_channels():
    one, three = make_embed(mean=(0.5,), std=(0.25,)), make_embed(mean=(0.5,) * 3, std=(0.25,) * 3)
    tokens = one.tokens(random_images(), None)
    assert torch.equal(one(tokens), three(tokens))


def test_random_inputs_come_from_the_same_image():
    embed = make_embed()
    images = torch.stack([torch.full((3, 8, 8), 10), torch.full((3, 8, 8), 200)]).to(torch.uint8)
    tokens = embed.tokens(images, None)
    drawn = embed.random_inputs(tokens, torch.rand(8, generator=torch.Generator().manual_seed(0)))
    assert (drawn[:4] == 10).all() and (drawn[4:] == 200).all()


@pytest.mark.parametrize(("height", "width"), [(8, 10), (10, 8), (2, 2)])
def test_sides_that_the_patch_does_not_divide_are_refused(height, width):
    with pytest.raises(ValueError, match=f"{height} x {width} pixels cannot be cut into patches of 4 x 4"):
        make_embed().tokens(random_images(height=height, width=width), None)
