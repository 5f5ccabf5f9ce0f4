"""Features as colours: the same axes and range for what is compared."""

import pytest
import torch
from torch.nn import functional as F

from multimodal.tokenizers.image import CodeFeatureRenderer, DiscreteVAE, FeatureRenderer
from multimodal.tokenizers.image.feature_render import principal_colours
from tests.tokenizers.image.test_vqkd_training import make_tokenizer, pixels


def drawn(renderer, tokenizer, predicted=None, masked=None):
    values = pixels(count=1)[0]
    ids = tokenizer.encode(values[None])
    nothing = torch.zeros(len(ids), dtype=torch.bool)
    with torch.no_grad():
        return values, renderer.render(
            tokenizer, values, ids, ids if predicted is None else predicted, nothing if masked is None else masked
        )


def test_colours_are_the_principal_components():
    features = torch.randn(30, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 4.0, 2.0, 1.0, 0.1])
    (colours,) = principal_colours(features, [features])
    assert colours.amin(0).tolist() == [0, 0, 0] and colours.amax(0).tolist() == [255, 255, 255]
    directions = F.normalize(features, dim=1)
    values, vectors = torch.linalg.eigh((directions - directions.mean(0)).T @ (directions - directions.mean(0)))
    for channel in range(3):
        along = directions @ vectors[:, values.argsort(descending=True)[channel]]
        assert abs(torch.corrcoef(torch.stack([along, colours[:, channel].float()]))[0, 1]) > 0.999
    again, longer, outside = principal_colours(features, [features, 7 * features, -features])
    assert torch.equal(again, longer) and not torch.equal(again, outside)
    assert principal_colours(features[:2], [features[:2]])[0].shape == (2, 3)
    assert principal_colours(torch.ones(4, 5), [torch.ones(4, 5)])[0].shape == (4, 3)


def test_a_tokenizer_that_keeps_everything_shows_its_teacher(monkeypatch):
    tokenizer = make_tokenizer().eval()
    values, pictures = drawn(FeatureRenderer(min_size=1), tokenizer)
    assert tuple(pictures) == FeatureRenderer.columns and torch.equal(pictures["image"], values)
    assert {tuple(x.shape) for x in pictures.values()} == {(3, 32, 48)} and all(x.dtype == torch.uint8 for x in pictures.values())
    assert not torch.equal(pictures["teacher's features"], pictures["tokens decoded"])
    patch = pictures["teacher's features"][:, 16:32, 32:48]
    assert torch.equal(patch, patch[:, :1, :1].expand_as(patch))
    monkeypatch.setattr(type(tokenizer), "decode", lambda self, ids: self.teacher_features(values[None])[None])
    _, pictures = drawn(FeatureRenderer(min_size=1), tokenizer)
    assert torch.equal(pictures["teacher's features"], pictures["tokens decoded"])
    assert drawn(FeatureRenderer(min_size=60), tokenizer)[1]["image"].shape == (3, 64, 96)


def test_predicted_codes_are_drawn_beside_the_true_ones():
    tokenizer = make_tokenizer(teacher=None, teacher_dim=6).eval()
    masked = torch.tensor([False, True, False, False, False, True])
    values, pictures = drawn(CodeFeatureRenderer(min_size=1), tokenizer, masked=masked)
    assert tuple(pictures) == CodeFeatureRenderer.columns
    expected = values.clone()
    expected[:, :16, 16:32] = expected[:, 16:, 32:] = 128
    assert torch.equal(pictures["masked"], expected)
    assert torch.equal(pictures["predicted"], pictures["tokens decoded"])
    other = (tokenizer.encode(values[None]) + 1) % 12
    assert not torch.equal(drawn(CodeFeatureRenderer(min_size=1), tokenizer, other)[1]["predicted"], pictures["tokens decoded"])


def test_what_has_no_features_is_refused():
    with pytest.raises(ValueError, match="not of those of a DiscreteVAE"):
        FeatureRenderer().render(
            DiscreteVAE(8, num_layers=2), pixels()[0], torch.zeros(6).long(), torch.zeros(6).long(), torch.zeros(6).bool()
        )
    with pytest.raises(ValueError, match="no teacher"):
        drawn(FeatureRenderer(), make_tokenizer(teacher=None, teacher_dim=6))
