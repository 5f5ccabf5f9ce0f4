"""Error rates of verification: by hand, and equal to those of scikit-learn's curve."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import det_curve, roc_curve

from multimodal.heads.verification import Trials, all_pairs, equal_error_rate, error_rates, listed_pairs, minimum_detection_cost


def trials(scores: list[float], same: list[int]) -> Trials:
    return Trials(torch.tensor(scores), torch.tensor(same, dtype=torch.bool))


@pytest.mark.parametrize(
    ("scores", "same", "rate"),
    [
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 0.0),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 1.0),
        ([0.9, 0.7, 0.6, 0.3], [1, 0, 1, 0], 0.5),
        ([0.9, 0.8, 0.7, 0.4, 0.3, 0.2], [1, 1, 0, 1, 0, 0], 1 / 3),
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0], 0.5),
        ([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0], 0.25),  # the line from 0 false alarms and 1/2 misses to 1/2 and 0
    ],
)
def test_equal_error_rates_by_hand(scores, same, rate):
    assert equal_error_rate(trials(scores, same)) == pytest.approx(rate)


def test_rates_by_hand():
    rates = error_rates(trials([0.9, 0.8, 0.8, 0.1], [1, 0, 1, 0]))
    assert rates.false_alarms.tolist() == [0, 0, 0.5, 1] and rates.misses.tolist() == [1, 0.5, 0, 0]
    assert rates.thresholds.tolist() == pytest.approx([np.inf, 0.9, 0.8, 0.1])


def test_costs_by_hand():
    # thresholds: none accepted 0.01 * 1; the first 0.01 * 2/3; the first two, one of them wrong, 0.01 * 2/3 + 0.99 * 1/2; ...
    few = trials([0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 1, 1, 0])
    assert minimum_detection_cost(few) == pytest.approx(2 / 3)
    # with as many pairs of one class as of two all are accepted but the last: 0.5 * 0 + 0.5 * 1/2 of 0.5
    assert minimum_detection_cost(few, target_share=0.5) == pytest.approx(0.5)
    assert minimum_detection_cost(few, target_share=0.5, miss_cost=0.1) == pytest.approx(2 / 3)
    assert minimum_detection_cost(trials([0.2, 0.9], [1, 0])) == 1.0


@given(
    scores=st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=2, max_size=60).filter(lambda x: len({y for _, y in x}) == 2),
    share=st.floats(0.01, 0.99),
)
@settings(max_examples=100, deadline=None)
def test_rates_are_those_of_scikit_learn(scores, share):
    points, same = np.array([x / 30 for x, _ in scores]), np.array([y for _, y in scores])
    own = Trials(torch.from_numpy(points), torch.from_numpy(same))
    false_alarms, hits, _ = roc_curve(same, points, drop_intermediate=False)
    rates = error_rates(own)
    assert np.allclose(rates.false_alarms, false_alarms) and np.allclose(1 - rates.misses, hits)
    fine = np.linspace(0, 1, len(rates.misses) * 2000)
    along = np.interp(fine, np.arange(len(hits)) / (len(hits) - 1), false_alarms), np.interp(fine, np.linspace(0, 1, len(hits)), 1 - hits)
    assert equal_error_rate(own) == pytest.approx(along[0][np.abs(along[0] - along[1]).argmin()], abs=2e-3)
    alarms, misses, _ = det_curve(same, points)
    cost = min(np.min(share * misses + (1 - share) * alarms), share, 1 - share) / min(share, 1 - share)
    assert minimum_detection_cost(own, share) == pytest.approx(cost)


def test_all_pairs_are_taken_once_by_their_cosine():
    embeddings = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, -2.0]])
    made = all_pairs(embeddings, torch.tensor([7, 7, 2]))
    assert made.same.tolist() == [True, False, False]
    assert made.scores.tolist() == pytest.approx([0.5**0.5, 0.0, -(0.5**0.5)], abs=1e-6)
    listed = listed_pairs(embeddings, torch.tensor([[0, 1], [2, 1]]), torch.tensor([True, False]))
    assert listed.scores.tolist() == pytest.approx([0.5**0.5, -(0.5**0.5)]) and listed.same.tolist() == [True, False]


def test_random_embeddings_are_told_by_chance():
    generator = torch.Generator().manual_seed(0)
    made = all_pairs(torch.randn(300, 16, generator=generator), torch.arange(300) % 10)
    assert len(made.scores) == 300 * 299 // 2
    assert equal_error_rate(made) == pytest.approx(0.5, abs=0.02) and minimum_detection_cost(made) > 0.98


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: all_pairs(torch.ones(3, 2), torch.zeros(2, dtype=torch.int64)), "got 3 embeddings and 2 labels"),
        (
            lambda: all_pairs(torch.ones(1, 2), torch.zeros(1, dtype=torch.int64)),
            "at least 2 embeddings .* got 1 embeddings and 1 labels",
        ),
        (lambda: equal_error_rate(trials([0.1, 0.2], [1, 1])), "pairs of one class and of two are needed, got 2 and 0"),
        (lambda: equal_error_rate(trials([float("nan"), 0.2], [1, 0])), "a score is not finite"),
        (lambda: minimum_detection_cost(trials([0.1, 0.2], [1, 0]), 0.0), r"target_share must be in \(0, 1\).* got 0.0, 1.0 and 1.0"),
        (
            lambda: listed_pairs(torch.ones(3, 2), torch.tensor([[0, 1], [1, 3]]), torch.ones(2, dtype=torch.bool)),
            "pair 1 names embedding 3; there are 3, the first is 0",
        ),
        (
            lambda: listed_pairs(torch.ones(3, 2), torch.tensor([[0, 1]]), torch.ones(2, dtype=torch.bool)),
            "there are 1 pairs, and 2 answers",
        ),
    ],
)
def test_what_cannot_be_scored_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
