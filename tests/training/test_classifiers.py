"""Classifiers of features: equal to scikit-learn's, with settings chosen on held-out items, and fair where scores are equal."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multimodal.training.classifiers import classify, fair_hits, folds, logistic_regression, nearest_neighbours


@pytest.fixture(scope="module")
def digits():
    data = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn").load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(data.data, dtype=torch.float32)[order], torch.tensor(data.target)[order].long()
    varies = x.std(0) > 0
    x = (x[:, varies] - x[:, varies].mean(0)) / x[:, varies].std(0)
    return x, y


@pytest.mark.parametrize("count", [40, 600])
@pytest.mark.parametrize("decay", [0.01, 1.0, 100.0])
def test_logistic_regression_is_scikit_learns(digits, count, decay):
    """With fewer items than values, too."""
    from sklearn.linear_model import LogisticRegression

    (x, y), (x_test, y_test) = (part[:count] for part in digits), (part[1000:] for part in digits)
    theirs = LogisticRegression(C=1 / decay, max_iter=5000, tol=1e-6).fit(x, y).predict(x_test) == y_test.numpy()
    ours = logistic_regression((x, y), (x_test, y_test), 10, (decay,))[0]
    assert float(ours.mean()) == pytest.approx(theirs.mean(), abs=0.006)
    assert (ours.numpy() == theirs).mean() > 0.985


def test_a_path_of_decays_equals_each_alone(digits):
    (x, y), scored = (part[:300] for part in digits), tuple(part[1000:] for part in digits)
    decays = (1.0, 0.01, 100.0)
    together = logistic_regression((x, y), scored, 10, decays).mean(1)
    alone = [float(logistic_regression((x, y), scored, 10, (decay,)).mean()) for decay in decays]
    assert together.tolist() == pytest.approx(alone, abs=0.005)


def test_nearest_neighbours_are_scikit_learns(digits):
    from sklearn.neighbors import KNeighborsClassifier

    (x, y), (x_test, y_test) = (part[:500] for part in digits), (part[1000:] for part in digits)
    ours = nearest_neighbours((x, y), (x_test, y_test), 10, (1, 20, 900)).mean(1)
    for found, count in zip(ours, (1, 20, 500), strict=True):
        weights = lambda distance: torch.exp((1 - torch.tensor(distance)) / 0.07).numpy()  # noqa: E731
        theirs = KNeighborsClassifier(count, metric="cosine", weights=weights).fit(x, y).score(x_test, y_test)
        assert float(found) == pytest.approx(theirs, abs=0.003)


def test_blocks_of_scored_items_change_nothing(digits, monkeypatch):
    labelled, scored = tuple(part[:200] for part in digits), tuple(part[1000:1100] for part in digits)
    whole = nearest_neighbours(labelled, scored, 10, (5,))
    monkeypatch.setattr("multimodal.training.classifiers.SIMILARITIES", 7 * 200)
    assert torch.equal(nearest_neighbours(labelled, scored, 10, (5,)), whole)


def test_a_guess_among_equal_scores_is_worth_its_chance():
    scores = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert fair_hits(scores, torch.tensor([1, 2, 1, 2])).tolist() == pytest.approx([0.5, 1 / 3, 1.0, 0.0])


def test_features_that_say_nothing_are_worth_chance():
    """A plain argmax would give the first class, which is 70% of the test items, to all."""
    y, y_test = torch.arange(40) % 4, torch.tensor([0] * 70 + [1] * 10 + [2] * 10 + [3] * 10)
    for classifier in (logistic_regression, nearest_neighbours):
        hits = classifier((torch.zeros(40, 3), y), (torch.zeros(100, 3), y_test), 4, (40,))
        assert float(hits.mean()) == pytest.approx(0.25, abs=0.01)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_held_out_items_are_never_learned_from_and_classes_are_spread(labels):
    y = torch.tensor(labels)
    x = torch.arange(len(y))[:, None].float()
    parts = list(folds((x, y)))
    most = int(y.bincount().max())
    assert len(parts) == (min(5, most) if most > 1 else 0)
    for (rest, _), (held, y_held) in parts:
        assert sorted([*rest.flatten().tolist(), *held.flatten().tolist()]) == list(range(len(y)))
        for label in y.unique():
            own = int((y == label).sum())
            assert own // len(parts) <= int((y_held == label).sum()) <= -(-own // len(parts))
    if parts:
        assert sorted(torch.cat([held for _, (held, _) in parts]).flatten().tolist()) == list(range(len(y)))


def test_no_more_folds_than_are_needed():
    assert len(list(folds((torch.zeros(3000, 1), torch.arange(3000) % 2)))) == 1


def test_the_setting_is_chosen_on_labelled_items_alone():
    """The test items are labelled against what the labelled ones teach: a choice on them would take another k."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 2
    x = torch.nn.functional.one_hot(y, 2) * 4.0 + torch.randn(60, 2, generator=generator) * 1.5
    x_test = torch.nn.functional.one_hot(y, 2) * 4.0 + torch.randn(60, 2, generator=generator) * 1.5
    outcome = classify(nearest_neighbours, (x, y), (x_test, y), 2, (1, 20))
    flipped = classify(nearest_neighbours, (x, y), (x_test, 1 - y), 2, (1, 20))
    assert outcome.setting == flipped.setting == 20 and outcome.held_out == flipped.held_out > 0.8
    torch.testing.assert_close(outcome.hits, 1 - flipped.hits)


def test_with_one_label_of_a_class_nothing_is_held_out():
    x, y = torch.eye(3), torch.arange(3)
    outcome = classify(nearest_neighbours, (x, y), (x * 2, y), 3, (1, 3))
    assert outcome.setting == 1 and math.isnan(outcome.held_out) and outcome.hits.tolist() == [1, 1, 1]
