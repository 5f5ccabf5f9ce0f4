"""The model's methods are named and shaped as in timm, and agree with each other."""

import pytest
import torch

from multimodal.pretrained import PretrainedModel
from multimodal.pretrained.settings import ModelSettings, part

from .conftest import image_settings, randomized


def test_features_and_head_make_the_logits(image_model, images):
    x = image_model.forward_features(images)
    assert x.shape == (3, 10, 32)
    torch.testing.assert_close(image_model.forward_head(x), image_model(images))


def test_intermediates_end_in_the_features(images):
    model = randomized(PretrainedModel(image_settings(norm_at="output")))
    final, layers = model.forward_intermediates(images, output_fmt="NLC", norm=True, return_prefix_tokens=True)
    assert len(layers) == 3
    torch.testing.assert_close(torch.cat(layers[-1][::-1], 1), final)
    maps = model.forward_intermediates(images, indices=(0, -1), intermediates_only=True)
    assert [x.shape for x in maps] == [(3, 32, 3, 3)] * 2
    torch.testing.assert_close(model.encoder.norm(maps[1].flatten(2).transpose(1, 2)), final[:, 1:])


def test_indices_are_timms(image_model):
    assert image_model.layer_indices(None) == [0, 1, 2]
    assert image_model.layer_indices(2) == [1, 2]
    assert image_model.layer_indices([-1, 0]) == [0, 2]
    with pytest.raises(ValueError, match=r"indices must be layers in \[-3, 3\), got \[3\]"):
        image_model.layer_indices([3])


def test_what_cannot_be_asked_is_said(image_model, images):
    with pytest.raises(ValueError, match="no norm after its last layer"):
        image_model.forward_intermediates(images, norm=True)
    with pytest.raises(ValueError, match=r"head must be one of \['classes'\], got 'tokens'"):
        image_model.forward_head(image_model.forward_features(images), "tokens")
    with pytest.raises(ValueError, match=r"modality must be one of \['image'\], got 'sound'"):
        image_model.forward_features(images, modality="sound")


def test_packed_and_dense_give_the_same(image_model, images):
    encoded, _, sample, where = image_model.encode({"image": images})
    assert where == {"image": slice(0, 27)}
    torch.testing.assert_close(encoded.tokens, image_model.forward_features(images)[:, 1:].flatten(0, 1))
    assert sample.tolist() == [0] * 9 + [1] * 9 + [2] * 9


@pytest.fixture
def note_model() -> PretrainedModel:
    embed = part("multimodal.tokenizers.midi.CompoundEmbed", vocab_sizes=[4, 18, 88, 66], field_dim=8)
    head = part("multimodal.heads.ClassificationHead", num_classes=2, pool="mean")
    encoder = part("multimodal.nn.Encoder", dim=32, depth=2, num_heads=2, class_token=True)
    return randomized(PretrainedModel(ModelSettings(encoder, {"midi": embed}, {"classes": head})))


def test_ragged_items_do_not_see_each_other_nor_padding(note_model):
    torch.manual_seed(0)
    lengths = torch.tensor([3, 1, 5])
    notes = torch.randint(0, 4, (9, 4))
    features = note_model.features(notes, lengths)
    assert features.x.shape == (3, 6, 32)
    assert features.valid.sum(1).tolist() == [4, 2, 6]
    for i, own in enumerate(notes.split([3, 1, 5])):
        alone = note_model.forward_features(own, torch.tensor([len(own)]))
        torch.testing.assert_close(features.x[i, : len(own) + 1], alone[0])
        torch.testing.assert_close(note_model(notes, lengths)[i], note_model(own, torch.tensor([len(own)]))[0])
    assert not features.x[1, 2:].any()


def test_padded_and_ragged_give_the_same(note_model):
    torch.manual_seed(0)
    lengths = torch.tensor([3, 1, 5])
    padded, valid = torch.randint(0, 4, (3, 5, 4)), torch.arange(5) < lengths[:, None]
    ragged = note_model.features(padded[valid], lengths)
    x = note_model.forward_padded(padded, valid)
    torch.testing.assert_close(x[ragged.valid], ragged.x[ragged.valid])
    torch.testing.assert_close(note_model.padded_logits(padded, valid), note_model(padded[valid], lengths))


def test_samples_of_two_modalities_are_one_sequence(image_model, note_model, images):
    settings = ModelSettings(
        part("multimodal.nn.Encoder", dim=32, depth=2, num_heads=2), {**image_model.settings.embeds, **note_model.settings.embeds}
    )
    model = randomized(PretrainedModel(settings))
    notes, lengths = torch.randint(0, 4, (6, 4)), torch.tensor([1, 2, 3])
    encoded, _, sample, where = model.encode({"image": images, "midi": notes}, {"midi": lengths})
    assert where == {"image": slice(0, 27), "midi": slice(27, 33)}
    assert sample[27:].tolist() == [0, 1, 1, 2, 2, 2]
    alone, _, _, _ = model.encode({"image": images[1:2], "midi": notes[1:3]}, {"midi": lengths[1:2]})
    torch.testing.assert_close(encoded.tokens[[*range(9, 18), 28, 29]], alone.tokens)


def test_the_transform_is_built_from_the_settings(image_model):
    assert image_model.transform().size == 48
