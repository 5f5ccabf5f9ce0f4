"""Scores of segmentation, against loops and torchmetrics."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassJaccardIndex

from multimodal.training.segmentation_scores import SegmentationScores

ZERO = torch.zeros(())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 60))
def test_iou_is_the_share_of_pixels_in_both_of_those_in_either(seed, classes, pixels):
    generator = torch.Generator().manual_seed(seed)
    labels, guesses = (torch.randint(classes, (pixels,), generator=generator) for _ in range(2))
    metric = SegmentationScores(classes, [f"c{i}" for i in range(classes)])
    for own in torch.arange(pixels).split(7):  # in unequal batches
        metric.update(ZERO, guesses[own], labels[own])
    scores = metric.compute()
    expected = {}
    for number in range(classes):
        either = ((labels == number) | (guesses == number)).sum()
        if either:
            expected[number] = ((labels == number) & (guesses == number)).sum() / either
    assert {name: float(value) for name, value in scores.items() if name.startswith("iou/")} == pytest.approx(
        {f"iou/c{number}": float(value) for number, value in expected.items()}
    )
    assert float(scores["mean_iou"]) == pytest.approx(float(sum(expected.values()) / len(expected)))
    assert float(scores["pixel_accuracy"]) == pytest.approx(float((labels == guesses).float().mean()))
    recalls = [float((guesses[labels == number] == number).float().mean()) for number in labels.unique()]
    assert float(scores["mean_accuracy"]) == pytest.approx(sum(recalls) / len(recalls))


def test_torchmetrics_agrees_where_all_classes_occur():
    labels, guesses = torch.randint(4, (500,)), torch.randint(4, (500,))
    metric = SegmentationScores(4)
    metric.update(ZERO, guesses, labels)
    assert float(metric.compute()["mean_iou"]) == pytest.approx(float(MulticlassJaccardIndex(4)(guesses, labels)))


def test_the_loss_is_a_mean_over_pixels_and_nothing_comes_of_nothing():
    metric = SegmentationScores(3)
    metric.update(ZERO, torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
    assert metric.compute() == {}
    metric.update(torch.tensor(6.0), torch.tensor([1, 2, 0]), torch.tensor([1, 1, 1]))
    metric.update(torch.tensor(2.0), torch.tensor([1]), torch.tensor([1]))
    scores = metric.compute()
    assert float(scores["loss"]) == 2.0 and float(scores["pixels"]) == 4
    assert float(scores["mean_iou"]) == pytest.approx((0.5 + 0 + 0) / 3)
    assert not [name for name in scores if name.startswith("iou/")]
