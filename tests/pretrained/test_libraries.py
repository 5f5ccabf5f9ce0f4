"""Saved models open in timm and in transformers."""

import pytest
import timm
import torch
from transformers import AutoConfig, AutoModel

import multimodal.pretrained.auto_model
import multimodal.pretrained.timm_models
from multimodal.pretrained import ModelSettings, PretrainedModel, from_pretrained
from multimodal.pretrained.settings import part

from .conftest import randomized

assert multimodal.pretrained.auto_model
assert multimodal.pretrained.timm_models


@pytest.fixture
def folder(image_model, tmp_path):
    image_model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def normalized(images):
    return (images / 255 - 0.5) / 0.5


def test_automodel_loads_a_saved_model(folder, image_model, images, tmp_path):
    model = AutoModel.from_pretrained(folder)
    assert torch.equal(model(pixel_values=images).last_hidden_state, image_model.forward_features(images))
    assert AutoConfig.from_pretrained(folder).model_type == "multimodal"
    model.save_pretrained(tmp_path / "again")
    assert torch.equal(from_pretrained(tmp_path / "again")(images), image_model(images))
    with pytest.raises(ValueError, match="give pixel_values or input_ids"):
        model()


def test_automodel_keeps_the_type_that_is_asked_for(folder):
    assert AutoModel.from_pretrained(folder, dtype=torch.bfloat16).encoder.blocks[0].norm1.weight.dtype == torch.bfloat16


def test_timm_makes_the_classifier(folder, image_model, images):
    model = timm.create_model("multimodal_model", folder=folder)
    torch.testing.assert_close(model(normalized(images)), image_model(images), rtol=0, atol=1e-5)
    config = timm.data.resolve_model_data_config(model)
    assert (config["mean"], config["std"], config["input_size"]) == ((0.5,) * 3, (0.5,) * 3, (3, 48, 48))
    features = model.forward_features(normalized(images))
    torch.testing.assert_close(model.forward_head(features), model(normalized(images)))
    assert model.forward_head(features, pre_logits=True).shape == (3, 32)


def test_timm_makes_a_backbone(folder, image_model, images):
    model = timm.create_model("multimodal_model", folder=folder, features_only=True, out_indices=(0, 1))
    assert model.feature_info.channels() == [32, 32]
    assert model.feature_info.reduction() == [16, 16]
    maps = model(normalized(images))
    _, expected = image_model.forward_intermediates(images, indices=(0, 1))
    for got, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


def test_timm_makes_a_new_classifier_that_trains(folder, images):
    model = timm.create_model("multimodal_model", folder=folder, num_classes=7, global_pool="token")
    model.set_grad_checkpointing()
    assert model(normalized(images)).shape == (3, 7)
    assert model.get_classifier().out_features == 7
    model.train()(normalized(images)).sum().backward()
    assert all(x.grad is not None for name, x in model.named_parameters() if "mask_token" not in name)
    assert timm.create_model("multimodal_model", folder=folder, num_classes=0)(normalized(images)).shape == (3, 10, 32)


def test_timm_resamples_for_another_size(folder):
    model = timm.create_model("multimodal_model", folder=folder, img_size=64).eval()
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert model.encoder.blocks[0].attn.position_bias.table.shape == (7 * 7 + 3, 4)


def test_timm_is_told_what_is_wrong(folder):
    with pytest.raises(ValueError, match="needs the folder of a saved model"):
        timm.create_model("multimodal_model")
    with pytest.raises(ValueError, match="in_chans must be 3"):
        timm.create_model("multimodal_model", folder=folder, in_chans=1)


def test_automodel_takes_padded_sequences(tmp_path):
    embed = part("multimodal.tokenizers.midi.CompoundEmbed", vocab_sizes=[4, 18, 88, 66], field_dim=8)
    settings = ModelSettings(part("multimodal.nn.Encoder", dim=32, depth=2, num_heads=2), {"midi": embed})
    own = randomized(PretrainedModel(settings))
    own.save_pretrained(tmp_path)
    ids = torch.randint(0, 4, (2, 5, 4), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    hidden = AutoModel.from_pretrained(tmp_path)(input_ids=ids, attention_mask=mask).last_hidden_state
    ragged = own.forward_features(ids[mask.bool()], mask.sum(1))
    torch.testing.assert_close(hidden[mask.bool()], ragged[mask.bool()])
