"""The prediction head, for one and for several fields."""

import pytest
import torch
from torch.nn import functional as F

from multimodal.nn import PredictionHead


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
