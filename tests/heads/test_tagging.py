"""Several labels of a sample: the loss by hand, rows without labels, and BEATs' mean of the tokens' logits."""

import pytest
import torch
from torch.nn import functional as F

from multimodal.heads import TaggingHead
from multimodal.nn import Encoded


def head(**settings) -> TaggingHead:
    torch.manual_seed(0)
    return TaggingHead(8, **({"num_classes": 3} | settings))


def test_the_mean_of_the_logits_of_the_tokens_is_pooling_by_the_mean():
    own = head()
    tokens, sequence = torch.randn(9, 8), torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2])
    logits = own(Encoded(tokens, None), sequence, 3)
    of_tokens = F.linear(tokens, own.proj.weight, own.proj.bias)
    expected = torch.stack([of_tokens[sequence == number].mean(0) for number in range(3)])
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("weight", [1.0, 3.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_by_hand(weight, smoothing):
    logits, labels = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]]), torch.tensor([[1, 0, 1], [0, 0, 0]])
    expected = []
    for row, told in zip(logits.tolist(), labels.tolist(), strict=True):
        losses = []
        for logit, there in zip(row, told, strict=True):
            target = there * (1 - smoothing) + smoothing / 2
            yes = torch.tensor(logit).sigmoid()
            losses.append(-(weight * target * yes.log() + (1 - target) * (1 - yes).log()))
        expected.append(sum(losses) / 3)
    torch.testing.assert_close(head(positive_weight=weight).losses(logits, labels, smoothing), torch.stack(expected))


def test_rows_are_filled_up_to_the_classes_of_the_head():
    own = head(num_classes=4)
    assert own.told(torch.tensor([[1, 0], [-1, -1]]), 2).tolist() == [[1, 0, 0, 0], [-1, -1, -1, -1]]
    assert own.told(None, 2).tolist() == [[-1] * 4] * 2
    assert own.labelled(own.told(torch.tensor([[0, 0], [-1, -1]]), 2)).tolist() == [True, False]


@pytest.mark.parametrize(
    ("labels", "sample", "found"),
    [
        (torch.tensor([[0, 1, 0], [0, 2, 0]]), 1, r"labels of the values \[0, 2\]"),
        (torch.tensor([[0, -1, 0]]), 0, r"labels of the values \[-1, 0\]"),
        (torch.zeros(2, 4, dtype=torch.int64), 0, "labels for 4 classes"),
        (torch.tensor([1, 2]), 0, "one label"),
    ],
)
def test_rows_that_do_not_fit_are_named(labels, sample, found):
    misfit = head().misfit(labels)
    assert misfit.sample == sample
    with pytest.raises(ValueError, match=found):
        raise ValueError(misfit.found)
    assert head().misfit(torch.tensor([[0, 1, 0], [-1, -1, -1]])) is None


def test_probabilities_are_of_each_class_alone_and_there_is_no_likeliest():
    logits = torch.tensor([[4.0, 4.0, -4.0]])
    found = head().predictions("labels", logits)
    assert list(found) == ["labels"] and found["labels"].sum() > 1.9
    assert head().right(logits, torch.tensor([[1, 1, 0]])).tolist() == [True]
    assert head().right(logits, torch.tensor([[1, 0, 0]])).tolist() == [False]


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_a_weight_that_is_not_positive_is_refused(weight):
    with pytest.raises(ValueError, match="positive_weight must be above 0"):
        head(positive_weight=weight)
