"""Pictures of predicted pixels."""

from functools import partial

import pytest
import torch

from multimodal.masking import Drop, RandomMasking
from multimodal.modality import Modality
from multimodal.nn import Decoder, Encoder
from multimodal.objectives import Places, TokenValues
from multimodal.tokenizers.image import DiscreteVAE, ImageTransform, PatchEmbed, PixelRenderer
from multimodal.tokenizers.image.render import GREY
from multimodal.training import MaskedPretraining
from tests.objectives.pictures import encode, mae_encoder, mae_modality, picture_batch


def pictures(target: TokenValues, channels: int = 3, **settings):
    items = picture_batch(1, channels=channels, side=8).items["picture"]
    tokens = PatchEmbed(8, patch_size=4, channels=channels).tokens(items.values, None)
    truth, masked = target(items, tokens), torch.tensor([True, False, False, True])
    return items.values[0], truth, masked, partial(PixelRenderer(grid=(2, 2), **settings).render, target, items.values[0])


@pytest.mark.parametrize("target", [TokenValues(), TokenValues(channels=3), TokenValues(False, mean=(0.4,) * 3, std=(0.2, 0.3, 0.4))])
def test_true_values_complete_the_picture(target):
    image, truth, masked, render = pictures(target, min_size=8)
    made = render(truth, truth, masked)
    assert tuple(made) == PixelRenderer.columns == ("image", "masked", "predicted", "completed")
    assert torch.equal(made["image"], image) and torch.equal(made["completed"], image)
    hidden = torch.zeros(8, 8, dtype=torch.bool)
    hidden[:4, :4] = hidden[4:, 4:] = True
    assert (made["masked"][:, hidden] == GREY).all() and torch.equal(made["masked"][:, ~hidden], image[:, ~hidden])
    assert (made["predicted"][:, ~hidden] == GREY).all() and torch.equal(made["predicted"][:, hidden], image[:, hidden])


def test_predictions_stand_where_the_hidden_patches_were():
    image, truth, masked, render = pictures(TokenValues(False), min_size=8)
    guesses = truth.clone()
    guesses[masked] = torch.tensor([2.0, -1.0])[:, None]  # beyond white and black
    made = render(truth, guesses, masked)["completed"]
    assert (made[:, :4, :4] == 255).all() and (made[:, 4:, 4:] == 0).all()
    assert torch.equal(made[:, :4, 4:], image[:, :4, 4:])


def test_small_pictures_of_one_channel_are_enlarged_and_grey():
    image, truth, masked, render = pictures(TokenValues(), channels=1, min_size=20)
    made = render(truth, truth, masked)["image"]
    assert made.shape == (3, 24, 24) and made.dtype == torch.uint8
    assert torch.equal(made[:, ::3, ::3], image.expand(3, -1, -1))


def test_what_cannot_be_drawn_is_refused():
    image, truth, masked, _ = pictures(TokenValues())
    with pytest.raises(ValueError, match=r"draws predicted pixels \(target: TokenValues\), not the ids of a DiscreteVAE"):
        PixelRenderer((2, 2)).render(DiscreteVAE(num_tokens=4, num_layers=2, width=4, codebook_dim=4), image, truth, truth, masked)
    with pytest.raises(
        ValueError, match=r"the renderer's grid \(14, 14\) does not fit an image of 4 tokens: set the grid of the PixelRenderer"
    ):
        PixelRenderer().render(TokenValues(), image, truth, truth, masked)
    with pytest.raises(ValueError, match="what a Places asks for are no values of tokens, which could be drawn"):
        PixelRenderer((2, 2)).render(Places((2, 2)), image, truth, truth, masked)


def test_a_model_draws_what_it_predicts():
    model = MaskedPretraining(mae_encoder(), {"picture": mae_modality(renderer=PixelRenderer((4, 4), min_size=16))}).eval()
    batch = picture_batch(3)
    made = model.pictures(batch, 2)["picture"]
    assert len(made) == 2 and made[0]["completed"].shape == (3, 16, 16)
    view = encode(model, batch).views["picture"].view
    for picture, masked, image in zip(made, view.masked.view(3, 16), batch.items["picture"].values, strict=False):
        shown = ~masked.view(4, 4).repeat_interleave(4, 0).repeat_interleave(4, 1)
        assert torch.equal(picture["completed"][:, shown], image.expand(3, -1, -1)[:, shown])
        assert not torch.equal(picture["completed"], picture["image"])


def test_a_wrong_grid_is_told_before_any_data_is_read():
    modality = partial(
        Modality,
        transform=ImageTransform(size=32, tokenizer_size=None),
        embed=partial(PatchEmbed, patch_size=8),
        masking=RandomMasking(0.75),
        corruption=Drop(),
        target=TokenValues(),
        decoder=partial(Decoder, width=8, depth=1, num_heads=2),
        renderer=PixelRenderer(),
    )
    with pytest.raises(
        ValueError, match=r"modality 'picture' do not fit each other: the renderer's grid \(14, 14\) does not fit an image of 16 tokens"
    ):
        MaskedPretraining(Encoder(dim=16, depth=1, num_heads=2), {"picture": modality})
