"""Probes: right on what can be read, chance on what cannot, and nothing chosen on what is scored."""

import math

import pytest
import torch

from multimodal.training.probing import BEST, ProbeOptions, ProbeResult, draw, paired_bootstrap, probe, probe_layers


def by_name(results: list[ProbeResult]) -> dict[tuple[str, int], ProbeResult]:
    return {(result.method, result.labels_per_class): result for result in results}


def clusters(count: int, seed: int, classes: int = 4, noise: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Items in far-apart clusters, one for each class; one feature is a constant, one has another scale."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    x = torch.nn.functional.one_hot(y, classes) * 10 + torch.randn(count, classes, generator=generator) * noise
    return torch.cat([x, torch.full((count, 1), 7.0), 1e4 * torch.randn(count, 1, generator=generator)], 1), y


def test_separable_classes_are_read_without_error():
    results = probe(clusters(200, 0), clusters(80, 1), ProbeOptions((5, 20, 0), draws=3))
    assert [result.mean for result in results] == [1.0] * 6
    assert all(result.std == 0 and result.held_out == 1 for result in results)
    assert [result.draws for result in results] == [3, 3, 3, 3, 1, 1]


def test_random_labels_are_read_at_chance():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(1200, 16, generator=generator), torch.randint(4, (1200,), generator=generator)
    for result in probe((x[:600], y[:600]), (x[600:], y[600:]), ProbeOptions((10, 0))):
        assert result.mean == pytest.approx(0.25, abs=0.06), result


def test_features_are_standardised():
    train, test = clusters(100, 0), clusters(60, 1)
    shift, factor = torch.tensor([5.0, -3.0, 0.0, 9.0, 1.0, 2.0]), torch.tensor([1e-3, 1e3, 1.0, 7.0, 1.0, 1e-2])
    options = ProbeOptions((10,), draws=2)
    moved = probe((train[0] * factor + shift, train[1]), (test[0] * factor + shift, test[1]), options)
    assert [result.mean for result in moved] == pytest.approx([result.mean for result in probe(train, test, options)], abs=0.02)


def test_a_feature_that_is_constant_in_training_has_no_part():
    """A division by its spread, which is rounding, would let it drown all others where it is not constant in the test split."""
    (x, y), (x_test, y_test) = clusters(100, 0), clusters(60, 1)
    x[:, 4] += 2e-6 * torch.randn(100, generator=torch.Generator().manual_seed(2))
    x_test[:, 4] = torch.randn(60, generator=torch.Generator().manual_seed(3)) * 100
    assert [result.mean for result in probe((x, y), (x_test, y_test), ProbeOptions((20,), draws=1))] == [1.0, 1.0]


def test_test_items_have_no_part_in_the_standardisation():
    train, (x_test, y_test) = clusters(100, 0, noise=4.0), clusters(60, 1, noise=4.0)
    options = ProbeOptions((20,), draws=1)
    whole = probe(train, (x_test, y_test), options)
    half = probe(train, (x_test[:30], y_test[:30]), options)
    assert all(torch.equal(a.hits[:30], b.hits) for a, b in zip(whole, half, strict=True))


def test_the_best_layer_is_chosen_without_the_test_items():
    """The first layer tells the labels of training and of none of the test items; choosing on test would never take it."""
    (x, y), (x_test, y_test) = clusters(200, 0), clusters(80, 1)
    noisy = torch.randn(200, 6, generator=torch.Generator().manual_seed(3))
    layers, layers_test = {0: x, 1: noisy}, {0: torch.randn(80, 6), 1: x_test}
    results = probe_layers(layers, y, layers_test, y_test, ProbeOptions((10,), draws=3))
    assert [(result.layer, result.method) for result in results] == [(a, b) for a in (0, 1, BEST) for b in ("knn", "linear")]
    best = {result.method: result for result in results if result.layer == BEST}
    assert best["knn"].chosen == best["linear"].chosen == (0, 0, 0) and best["linear"].held_out == 1
    assert best["linear"].mean == results[1].mean < 0.5


def test_without_held_out_items_no_layer_is_called_best():
    (x, y), test = clusters(40, 0), clusters(40, 1)
    results = probe_layers({0: x, 1: x}, y, {0: test[0], 1: test[0]}, test[1], ProbeOptions((1,), draws=2))
    assert {result.layer for result in results} == {0, 1} and all(math.isnan(result.held_out) for result in results)


def test_draws_are_the_same_for_every_model():
    (x, y), (x_test, y_test) = clusters(100, 0, noise=5.0), clusters(60, 1, noise=5.0)
    options = ProbeOptions((3,), draws=4)
    first = probe((x, y), (x_test, y_test), options)
    torch.randn(7)  # a generator that others use has no part
    again = probe_layers({0: x.flip(1)[:, :3], 1: x}, y, {0: x_test.flip(1)[:, :3], 1: x_test}, y_test, options)
    for ours, other in zip(first, [result for result in again if result.layer == 1], strict=True):
        assert torch.equal(ours.hits, other.hits) and ours.std > 0


def test_the_score_of_the_most_frequent_class_is_told():
    (x, _), (x_test, _) = clusters(40, 0), clusters(50, 1)
    y, y_test = torch.tensor([2] * 20 + [0] * 10 + [1] * 10), torch.tensor([0] * 30 + [2] * 15 + [1] * 5)
    result = probe((x, y), (x_test, y_test), ProbeOptions((0,)))[0]
    assert result.majority == pytest.approx(0.3) and result.test_items == len(result.hits) == 50
    assert float(result.hits.mean()) == pytest.approx(result.mean)


@pytest.fixture(scope="module")
def digits():
    data = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn").load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(data.data, dtype=torch.float32)[order], torch.tensor(data.target)[order].long()
    return (x[:1000], y[:1000]), (x[1000:], y[1000:])


@pytest.mark.parametrize("count", [10, 0])
def test_agrees_with_scikit_learn_on_digits(digits, count):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    (x, y), (x_test, y_test) = digits
    ours = by_name(probe(*digits, ProbeOptions((count,), draws=1, decays=(1.0,))))
    scaler = StandardScaler().fit(x)
    chosen = draw(y, count, 0)
    theirs = LogisticRegression(C=1.0, max_iter=2000).fit(scaler.transform(x[chosen]), y[chosen]).score(scaler.transform(x_test), y_test)
    assert ours["linear", count].mean == pytest.approx(theirs, abs=0.005)


def test_more_labels_help(digits):
    results = by_name(probe(*digits, ProbeOptions((2, 50), draws=3)))
    for method in ("knn", "linear"):
        assert results[method, 50].mean > results[method, 2].mean + 0.1
        assert results[method, 2].std > 0
        assert results[method, 50].held_out == pytest.approx(results[method, 50].mean, abs=0.04)


def test_each_class_gives_the_labels_asked_for_or_what_it_has():
    labels = torch.tensor([0] * 30 + [1] * 5 + [3] * 12)
    chosen = draw(labels, 10, seed=0)
    assert labels[chosen].bincount().tolist() == [10, 5, 0, 10]
    assert len(chosen.unique()) == len(chosen)
    assert torch.equal(chosen, draw(labels, 10, seed=0)) and not torch.equal(chosen, draw(labels, 10, seed=1))
    assert sorted(draw(labels, 0, seed=0).tolist()) == list(range(47))
    assert labels[chosen].tolist() != sorted(labels[chosen].tolist())  # neighbours that are equally far count in their order


def test_classes_that_are_missing_on_one_side_are_allowed():
    (x, y), (x_test, y_test) = clusters(80, 0), clusters(40, 1)
    results = probe((x[y != 3], y[y != 3]), (x_test, y_test), ProbeOptions((0,)))
    assert [result.mean for result in results] == [0.75, 0.75]


def test_what_cannot_be_probed_is_refused():
    (x, y), test = clusters(20, 0), clusters(20, 1)
    broken = x.clone()
    broken[3, 1] = float("nan")
    with pytest.raises(ValueError, match="the features of layer 7 are not finite"):
        probe_layers({7: broken}, y, {7: test[0]}, test[1])
    with pytest.raises(ValueError, match="needs items to learn from and to score, got 20 and 0"):
        probe((x, y), (test[0][:0], test[1][:0]))
    for settings in ({"labels_per_class": ()}, {"labels_per_class": (-1,)}, {"draws": 0}, {"neighbours": (0,)}):
        with pytest.raises(ValueError, match=f"{next(iter(settings))} must be"):
            ProbeOptions(**settings)


def test_a_paired_comparison_knows_what_is_owed_to_the_test_items():
    generator = torch.Generator().manual_seed(0)
    first = (torch.rand(1000, generator=generator) < 0.8).float()
    worse = first * (torch.rand(1000, generator=generator) < 0.95)  # wrong on what the first has wrong, and on 4% more
    found = paired_bootstrap(first, worse)
    assert found.mean == pytest.approx(float((first - worse).mean())) and 0.02 < found.low < found.mean < found.high < 0.06
    assert found.p_value < 0.001
    same = paired_bootstrap(first, first)
    assert (same.mean, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="the same test items, got 1000 and 999"):
        paired_bootstrap(first, first[1:])


def test_the_interval_is_that_of_the_normal_law():
    difference = torch.randn(400, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    found, error = paired_bootstrap(difference, torch.zeros(400)), float(difference.std()) / 20
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert found == paired_bootstrap(difference, torch.zeros(400)) != paired_bootstrap(difference, torch.zeros(400), seed=1)
