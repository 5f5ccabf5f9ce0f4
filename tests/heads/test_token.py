"""A class for each place: a linear layer, after a norm where one is asked for."""

import pytest
import torch

from multimodal.heads import TokenClassifier
from multimodal.nn import LayerNorm


def test_each_place_is_told_alone():
    torch.manual_seed(0)
    head, places = TokenClassifier(8, 3, norm=LayerNorm, dropout=0.5).eval(), torch.randn(5, 8)
    logits = head(places)
    assert logits.shape == (5, 3)
    torch.testing.assert_close(head(places[2:3])[0], logits[2])
    torch.testing.assert_close(head(places * 3 + 1), logits, atol=1e-3, rtol=1e-3)  # the norm takes scale and mean away
    plain = TokenClassifier(8, 3)
    torch.testing.assert_close(plain(places), places @ plain.proj.weight.T + plain.proj.bias)


def test_first_weights_are_scaled():
    torch.manual_seed(0)
    whole = TokenClassifier(8, 3).proj.weight
    torch.manual_seed(0)
    assert torch.allclose(TokenClassifier(8, 3, init_scale=0.01).proj.weight, 0.01 * whole)


def test_no_classes_are_refused():
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        TokenClassifier(8, 0)
