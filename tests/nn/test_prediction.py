"""The prediction head, for one and for several fields."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from multimodal.nn import LayerNorm, PredictionHead, RegressionHead


def test_one_field_is_plain_cross_entropy():
    head = PredictionHead(8, (5,))
    hidden, ids = torch.randn(6, 8), torch.randint(5, (6,))
    prediction = head.predict(hidden, ids)
    torch.testing.assert_close(prediction.loss, F.cross_entropy(head.proj(hidden), ids, reduction="none"))
    assert prediction.ids.shape == ids.shape
    assert (prediction.correct[:, 0] == (prediction.ids == ids)).all()


def test_fields_are_weighed_by_their_vocabulary_as_in_midibert():
    head = PredictionHead(8, (4, 18))
    hidden, ids = torch.randn(3, 8), torch.tensor([[0, 17], [3, 2], [1, 1]])
    bar, position = (F.cross_entropy(x, t, reduction="none") for x, t in zip(head(hidden), ids.unbind(1), strict=True))
    torch.testing.assert_close(head.predict(hidden, ids).loss, (4 * bar + 18 * position) / 22)


def test_nothing_to_predict_gives_a_connected_zero():
    head = PredictionHead(8, (4, 18))
    loss = head.predict(torch.zeros(0, 8, requires_grad=True), torch.zeros(0, 2, dtype=torch.int64)).loss.sum()
    loss.backward()
    assert loss == 0
    assert (head.proj.weight.grad == 0).all()


def test_field_weights_must_match_the_fields():
    with pytest.raises(ValueError, match="2 entries for 3 fields"):
        PredictionHead(8, (4, 5, 6), field_weights=(1, 1))


def test_vectors_of_the_hidden_layer_are_those_of_plain_torch():
    head = RegressionHead(8, (5,), loss="l1", norm=partial(LayerNorm, eps=1e-12))
    hidden, truth = torch.randn(6, 8), torch.randn(6, 5)
    first, norm = head.hidden[0], head.hidden[2]
    x = F.layer_norm(F.gelu(hidden @ first.weight.T + first.bias), (8,), norm.weight, norm.bias, 1e-12)
    prediction = head.predict(hidden, truth)
    torch.testing.assert_close(prediction.ids, x @ head.proj.weight.T + head.proj.bias)
    torch.testing.assert_close(prediction.loss, (prediction.ids - truth).abs().mean(1))


def test_entries_that_are_not_asked_for_add_nothing_to_loss_and_gradients():
    head, hidden, truth = RegressionHead(8, (5,), loss="l1"), torch.randn(6, 8), torch.randn(6, 5)
    asked = torch.rand(6, 5) < 0.5
    prediction = head.predict(hidden, truth.masked_fill(~asked, torch.nan))
    expected = ((hidden @ head.proj.weight.T + head.proj.bias - truth).abs() * asked).sum() / 5
    torch.testing.assert_close(prediction.loss.sum(), expected)
    wanted = torch.autograd.grad(expected, head.proj.weight)[0]
    prediction.loss.sum().backward()
    torch.testing.assert_close(head.proj.weight.grad, wanted)


@pytest.mark.parametrize("loss", ["mse", "smooth_l1", "cosine"])
def test_other_losses_do_not_hide_what_is_not_a_number(loss):
    head = RegressionHead(8, (5,), loss=loss)
    assert head.predict(torch.randn(2, 8), torch.tensor([[torch.nan] * 5, [1.0] * 5])).loss.isnan().tolist() == [True, False]


def test_a_head_without_a_hidden_layer_has_the_weights_it_had():
    assert set(RegressionHead(8, (5,)).state_dict()) == {"proj.weight", "proj.bias"}
