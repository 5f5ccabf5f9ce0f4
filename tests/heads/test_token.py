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


def test_a_hidden_layer_comes_after_dropout_as_in_midibert():
    torch.manual_seed(0)
    head, places = TokenClassifier(768, 4, dropout=0.1, hidden="relu", hidden_dim=256).eval(), torch.randn(5, 768)
    shapes = {"hidden.0.weight": (256, 768), "hidden.0.bias": (256,), "proj.weight": (4, 256), "proj.bias": (4,)}
    assert {name: tuple(x.shape) for name, x in head.named_parameters()} == shapes
    first, last = head.hidden[0], head.proj
    torch.testing.assert_close(head(places), (places @ first.weight.T + first.bias).relu() @ last.weight.T + last.bias)
    assert (head.train().drop(places) == 0).any()


def test_a_width_without_a_hidden_layer_is_refused():
    with pytest.raises(ValueError, match="has an effect only with a hidden layer: got 5 and hidden None"):
        TokenClassifier(8, 3, hidden_dim=5)
