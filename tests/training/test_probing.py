"""Probes: right on what can be read, chance on what cannot, equal to scikit-learn's classifier."""

import pytest
import torch

from multimodal.training.probing import ProbeResult, _draw, probe


def by_name(results: list[ProbeResult]) -> dict[tuple[str, int], ProbeResult]:
    return {(result.method, result.labels_per_class): result for result in results}


def clusters(count: int, seed: int, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Items in far-apart clusters, one for each class; one feature is a constant, one has another scale."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    x = torch.nn.functional.one_hot(y, classes) * 10 + torch.randn(count, classes, generator=generator) * 0.3
    return torch.cat([x, torch.full((count, 1), 7.0), 1e4 * torch.randn(count, 1, generator=generator)], 1), y


def test_separable_classes_are_read_without_error():
    results = probe(clusters(200, 0), clusters(80, 1), (5, 20, 0), draws=3)
    assert [result.mean for result in results] == [1.0] * 6
    assert all(result.std == 0 for result in results)
    assert [result.draws for result in results] == [3, 3, 3, 3, 1, 1]


def test_random_labels_are_read_at_chance():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(1200, 16, generator=generator), torch.randint(4, (1200,), generator=generator)
    for result in probe((x[:600], y[:600]), (x[600:], y[600:]), (10, 0)):
        assert result.mean == pytest.approx(0.25, abs=0.06), result


def test_features_are_standardised():
    train, test = clusters(100, 0), clusters(60, 1)
    shift, factor = torch.tensor([5.0, -3.0, 0.0, 9.0, 1.0, 2.0]), torch.tensor([1e-3, 1e3, 1.0, 7.0, 1.0, 1e-2])
    moved = probe((train[0] * factor + shift, train[1]), (test[0] * factor + shift, test[1]), (10,))
    assert [result.mean for result in moved] == pytest.approx([result.mean for result in probe(train, test, (10,))], abs=0.02)


@pytest.fixture(scope="module")
def digits():
    data = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn").load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(data.data, dtype=torch.float32)[order], torch.tensor(data.target)[order].long()
    return (x[:1000], y[:1000]), (x[1000:], y[1000:])


@pytest.mark.parametrize("count", [10, 0])
def test_agrees_with_scikit_learn_on_digits(digits, count):
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import StandardScaler

    (x, y), (x_test, y_test) = digits
    ours = by_name(probe(*digits, (count,), draws=1))
    scaler = StandardScaler().fit(x)
    chosen = _draw(y, count, 0)
    scaled, scaled_test = scaler.transform(x[chosen]), scaler.transform(x_test)
    theirs = LogisticRegression(C=1.0, max_iter=2000).fit(scaled, y[chosen]).score(scaled_test, y_test)
    assert ours["linear", count].mean == pytest.approx(theirs, abs=0.01)
    neighbours = KNeighborsClassifier(
        1 if count else 20, metric="cosine", weights=lambda distance: torch.exp(-torch.tensor(distance) / 0.07).numpy()
    )
    theirs = neighbours.fit(scaled, y[chosen]).score(scaled_test, y_test)
    assert ours["knn", count].mean == pytest.approx(theirs, abs=0.01)


def test_more_labels_help(digits):
    results = by_name(probe(*digits, (2, 50), draws=3))
    for method in ("knn", "linear"):
        assert results[method, 50].mean > results[method, 2].mean + 0.1
        assert results[method, 2].std > 0


def test_each_class_gives_the_labels_asked_for_or_what_it_has():
    labels = torch.tensor([0] * 30 + [1] * 5 + [3] * 12)
    chosen = _draw(labels, 10, seed=0)
    assert labels[chosen].bincount().tolist() == [10, 5, 0, 10]
    assert len(chosen.unique()) == len(chosen)
    assert torch.equal(chosen, _draw(labels, 10, seed=0)) and not torch.equal(chosen, _draw(labels, 10, seed=1))
    assert torch.equal(_draw(labels, 0, seed=0), torch.arange(47))


def test_classes_that_are_missing_on_one_side_are_allowed():
    (x, y), (x_test, y_test) = clusters(80, 0), clusters(40, 1)
    results = probe((x[y != 3], y[y != 3]), (x_test, y_test), (0,))
    assert [result.mean for result in results] == [0.75, 0.75]
