"""Parts of a modality that do not fit each other are found when the model is built."""

from functools import partial

import pytest
import torch

from multimodal.masking import BlockwiseMasking, RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Encoder
from multimodal.tokenizers.image import DiscreteVAE, ImageTransform, PatchEmbed, PatchGridRenderer
from multimodal.training import MaskedPretraining, TokenizerTraining


def build(size=16, patch=4, layers=2, second=None, **parts):
    parts = {"masking": RandomMasking(0.5)} | parts
    tokenizer = DiscreteVAE(num_tokens=11, channels=1, num_layers=layers, width=4, codebook_dim=4)
    transform = ImageTransform(size=size, tokenizer_size=second, channels=1)
    modality = partial(Modality, transform=transform, embed=partial(PatchEmbed, patch_size=patch, channels=1), tokenizer=tokenizer, **parts)
    return MaskedPretraining(Encoder(dim=16, depth=1, num_heads=2), {"drawing": modality})


def test_parts_that_fit_are_accepted():
    build(masking=BlockwiseMasking(min_block=2), renderer=PatchGridRenderer((4, 4)))
    build(size=16, second=8, layers=1)  # views of their own


def test_the_check_draws_no_random_numbers(monkeypatch):
    drawn = []
    for example in (ImageTransform.example, lambda transform: None):
        monkeypatch.setattr(ImageTransform, "example", example)
        torch.manual_seed(0)
        build()
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"patch": 8}, "DiscreteVAE gives 16 ids where PatchEmbed gives 4 tokens for 1 items"),
        ({"second": 8}, "DiscreteVAE gives 4 ids where PatchEmbed gives 16 tokens for 1 items"),
        ({"size": 18, "layers": 1}, "images of 18 x 18 pixels cannot be cut into patches of 4 x 4"),
        ({"renderer": PatchGridRenderer((7, 7))}, r"the renderer's grid \(7, 7\) does not fit an image of 16 tokens"),
    ],
)
def test_parts_that_do_not_are_refused(settings, expected):
    with pytest.raises(ValueError, match=f"the parts of modality 'drawing' do not fit each other: .*{expected}"):
        build(**settings)


def test_a_tokenizer_is_tried_on_its_transform():
    tokenizer = DiscreteVAE(num_tokens=11, channels=1, num_layers=2, width=4, codebook_dim=4)
    with pytest.raises(ValueError, match=r"the parts of modality 'drawing' do not fit each other: .*grid \(7, 7\) does not fit"):
        TokenizerTraining(tokenizer, ImageTransform(size=16, channels=1), "drawing", renderer=PatchGridRenderer((7, 7)))
