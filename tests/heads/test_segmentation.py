"""The linear head is one linear layer for each patch, over normalised channels."""

import pytest
import torch
from torch.nn import functional as F

from multimodal.heads import LinearSegmentation
from multimodal.recorded import build, settings_of


def test_each_patch_is_told_by_itself():
    head = LinearSegmentation(4, 3, num_layers=2).eval()
    torch.nn.init.normal_(head.classifier.weight)
    head.norm.running_mean.normal_()
    head.norm.running_var.uniform_(0.5, 2)
    layers = [torch.randn(2, 4, 3, 5) for _ in range(2)]
    joined = torch.cat(layers, 1)
    normed = (joined - head.norm.running_mean[:, None, None]) / (head.norm.running_var[:, None, None] + head.norm.eps).sqrt()
    expected = F.linear(normed.permute(0, 2, 3, 1), head.classifier.weight[..., 0, 0], head.classifier.bias)
    said = head(layers)
    assert said.auxiliary is None
    torch.testing.assert_close(said.logits, expected.permute(0, 3, 1, 2), atol=1e-5, rtol=1e-5)


def test_it_starts_undecided():
    logits = LinearSegmentation(64, 3)([torch.randn(2, 64, 4, 4)]).logits
    assert logits.abs().max() < 0.5


def test_it_is_built_again_from_its_settings():
    head = LinearSegmentation(4, 3, num_layers=2, dropout=0.25)
    again = build(settings_of(head, ("dim",)), 4)
    assert again.num_layers == 2 and again.drop.p == 0.25 and again.classifier.weight.shape == (3, 8, 1, 1)


@pytest.mark.parametrize("settings", [{"num_classes": 0}, {"num_layers": 0}])
def test_settings_are_checked(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be at least 1, got 0"):
        LinearSegmentation(4, **{"num_classes": 2, **settings})
