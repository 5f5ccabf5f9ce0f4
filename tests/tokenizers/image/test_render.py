"""Pictures of masked images."""

import pytest
import torch

from multimodal.protocols import Target
from multimodal.tokenizers.image import DiscreteVAE, PatchGridRenderer


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    return DiscreteVAE(num_tokens=8, channels=1, num_layers=2, width=4, codebook_dim=4).eval()


def render(tokenizer, renderer, values, masked, predicted=None):
    ids = tokenizer.encode(values[None])
    return renderer.render(tokenizer, values, ids, ids if predicted is None else predicted, masked)


def test_hidden_patches_are_grey_and_the_rest_is_the_image(tokenizer):
    values = torch.randint(256, (1, 8, 12), dtype=torch.uint8)
    masked = torch.tensor([0, 1, 0, 1, 0, 0], dtype=torch.bool)  # row 0 column 1, row 1 column 0
    pictures = render(tokenizer, PatchGridRenderer(grid=(2, 3), min_size=1), values, masked)
    expected = values.clone()
    expected[:, :4, 4:8] = 128
    expected[:, 4:, :4] = 128
    assert torch.equal(pictures["masked"], expected.expand(3, -1, -1))
    assert torch.equal(pictures["image"], values.expand(3, -1, -1))


def test_tokens_are_decoded_as_the_tokenizer_decodes_them(tokenizer):
    values = torch.randint(256, (1, 8, 12), dtype=torch.uint8)
    predicted = torch.arange(6)
    renderer = PatchGridRenderer(grid=(2, 3), min_size=1)
    pictures = render(tokenizer, renderer, values, torch.zeros(6, dtype=torch.bool), predicted)
    assert tuple(pictures) == renderer.columns == ("image", "masked", "predicted", "tokens decoded")
    for name, ids in (("predicted", predicted), ("tokens decoded", tokenizer.encode(values[None]))):
        decoded = (tokenizer.decode(ids.view(1, 2, 3))[0] * 255).round().to(torch.uint8)
        assert torch.equal(pictures[name], decoded.expand(3, -1, -1))


@pytest.mark.parametrize(("min_size", "side"), [(1, 8), (8, 8), (9, 16), (30, 32)])
def test_small_images_are_enlarged_by_a_whole_factor(tokenizer, min_size, side):
    values = torch.randint(256, (1, 8, 8), dtype=torch.uint8)
    pictures = render(tokenizer, PatchGridRenderer((2, 2), min_size), values, torch.ones(4, dtype=torch.bool))
    assert {tuple(picture.shape) for picture in pictures.values()} == {(3, side, side)}
    assert all(picture.dtype == torch.uint8 for picture in pictures.values())
    assert torch.equal(pictures["image"][:, :: side // 8, :: side // 8], values.expand(3, -1, -1))


def test_another_grid_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"grid \(3, 3\) .* 4 tokens"):
        render(tokenizer, PatchGridRenderer((3, 3)), torch.zeros(1, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.bool))


class Brightness(Target):
    def sizes(self, embed):
        return (1,)

    def forward(self, items, tokens):
        return tokens.inputs.float().mean(1, keepdim=True)


def test_what_is_no_tokenizer_is_refused():
    vectors, masked = torch.zeros(4, 1), torch.zeros(4, dtype=torch.bool)
    with pytest.raises(ValueError, match="draws the ids of a tokenizer, not what a Brightness predicts"):
        PatchGridRenderer((2, 2)).render(Brightness(), torch.zeros(1, 8, 8, dtype=torch.uint8), vectors, vectors, masked)
