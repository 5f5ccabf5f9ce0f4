"""How much of a label can be read from features that never saw it.

Letters in shapes: n items, m test items, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multimodal.training.classifiers import Classifier, Labelled, Outcome, classify, logistic_regression, nearest_neighbours
from multimodal.training.layer_features import OUTPUT

BEST = "best"
NEIGHBOURS = (1, 5, 20, 100)
DECAYS = (1.0, 0.01, 0.1, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class ProbeOptions:
    """What is tried; the same for every model that is compared.

    Args:
        labels_per_class: how many labelled items of each class, one probe for each number; 0: all. Classes with fewer give what they have.
        draws: seeded draws of the labelled items (1 where all are taken).
        neighbours: candidates of k; the first is taken where no labelled item can be held out to choose on.
        decays: candidates of the decay of logistic regression; likewise.

    Raises:
        ValueError: a number outside its range, or nothing to try.
    """

    labels_per_class: Sequence[int] = (10, 100)
    draws: int = 5
    neighbours: Sequence[int] = NEIGHBOURS
    decays: Sequence[float] = DECAYS

    def __post_init__(self) -> None:
        for name, least in (("labels_per_class", 0), ("neighbours", 1), ("decays", 0)):
            values = list(getattr(self, name))
            if not values or min(values) < least:
                raise ValueError(f"{name} must be numbers of at least {least}, got {values}.")
        if self.draws < 1:
            raise ValueError(f"draws must be at least 1, got {self.draws}.")

    @property
    def classifiers(self) -> dict[str, tuple[Classifier, Sequence[float]]]:
        """Method -> classifier and the candidates of its setting."""
        return {"knn": (nearest_neighbours, self.neighbours), "linear": (logistic_regression, self.decays)}


@dataclass(frozen=True)
class ProbeResult:
    """Accuracy of one probe.

    Args:
        method: "knn" or "linear".
        labels_per_class: labelled items of each class; 0: all.
        mean: accuracy on the test items, the mean over draws of the labelled items.
        std: standard deviation over the draws.
        draws: number of draws.
        layer: whose features; "best": in each draw that layer which was best on held-out labelled items.
        held_out: accuracy on held-out labelled items, the mean over draws; NaN where there was one labelled item of a class.
        chosen: what was chosen on these in each draw: k, the decay, or the layer.
        majority: accuracy on the test items of a guess of the most frequent class of the training items.
        test_items: number of test items.
        hits: ``(m,)``, for each test item the share of draws in which it was told right; for ``paired_bootstrap``.
    """

    method: str
    labels_per_class: int
    mean: float
    std: float
    draws: int
    layer: int | str = OUTPUT
    held_out: float = float("nan")
    chosen: tuple[Any, ...] = ()
    majority: float = float("nan")
    test_items: int = 0
    hits: Tensor = field(default_factory=lambda: torch.zeros(0), repr=False, compare=False)


def probe(
    train: tuple[Float[Tensor, "n d"], Int[Tensor, " n"]],
    test: tuple[Float[Tensor, "m d"], Int[Tensor, " m"]],
    options: ProbeOptions | None = None,
) -> list[ProbeResult]:
    """Score k-nearest neighbours and a linear classifier on frozen features, for several numbers of labels; see ``probe_layers``.

    Args:
        train: features and labels to draw the labelled items from.
        test: features and labels to score.
        options: what is tried.
    """
    return probe_layers({OUTPUT: train[0]}, train[1], {OUTPUT: test[0]}, test[1], options)


def probe_layers(
    train: Mapping[Any, Tensor],
    train_labels: Int[Tensor, " n"],
    test: Mapping[Any, Tensor],
    test_labels: Int[Tensor, " m"],
    options: ProbeOptions | None = None,
    listener: Callable[[], object] | None = None,
) -> list[ProbeResult]:
    """Score features of several layers, and of the layer that is best on held-out labelled items.

    Features are standardised with the statistics of all training items, which needs no labels; what is constant there is left out.
    k, the decay and the layer are chosen by cross-validation within the labelled items of each draw: no test item has a part in it. A
    draw is a function of the labels and its number alone: the same for every model and layer.

    Args:
        train: layer -> features ``(n, d)`` to draw the labelled items from.
        train_labels: their classes, from 0.
        test: layer -> features ``(m, d)`` to score.
        test_labels: their classes.
        options: what is tried.
        listener: called after each layer.

    Raises:
        ValueError: no items, or features that are not finite.
    """
    options = options or ProbeOptions()
    if not len(train_labels) or not len(test_labels):
        raise ValueError(f"a probe needs items to learn from and to score, got {len(train_labels)} and {len(test_labels)}.")
    seeds = {count: range(options.draws if count else 1) for count in options.labels_per_class}
    draws = {count: [draw(train_labels, count, seed) for seed in own] for count, own in seeds.items()}
    classes = int(torch.cat([train_labels, test_labels]).max()) + 1
    outcomes: dict[tuple[Any, int, str], list[Outcome]] = {}
    for layer in train:
        x, x_test = _standardised(layer, train[layer], test[layer])
        for count, drawn in draws.items():
            for method, (classifier, settings) in options.classifiers.items():
                labelled: list[Labelled] = [(x[index], train_labels[index]) for index in drawn]
                found = [classify(classifier, items, (x_test, test_labels), classes, settings) for items in labelled]
                outcomes[layer, count, method] = found
        if listener is not None:
            listener()
    if len(train) > 1:
        outcomes |= _best_layers(outcomes, list(train))
    guess = float((test_labels == train_labels.bincount().argmax()).double().mean())
    return [_result(layer, count, method, found, guess) for (layer, count, method), found in outcomes.items()]


def draw(labels: Int[Tensor, " n"], count: int, seed: int) -> Int[Tensor, " _"]:
    """Return, in random order, the indices of ``count`` items of each class, or of all items for 0."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    if count == 0:
        return order
    kept = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        kept[(labels[order] == label).nonzero()[:count, 0]] = True
    return order[kept]


def _standardised(layer: Any, x: Tensor, x_test: Tensor) -> tuple[Tensor, Tensor]:
    if not (x.isfinite().all() and x_test.isfinite().all()):
        raise ValueError(f"the features of layer {layer} are not finite.")
    mean, std = x.mean(0), x.std(0, correction=0)
    varies = std > 1e-6 * x.abs().amax(0).clamp(min=1e-30)  # what is left of a constant is noise of the sum
    return (x - mean)[:, varies] / std[varies], (x_test - mean)[:, varies] / std[varies]


def _best_layers(
    outcomes: Mapping[tuple[Any, int, str], list[Outcome]], layers: Sequence[Any]
) -> dict[tuple[Any, int, str], list[Outcome]]:
    """Return the outcomes of the layer that was best on held-out items, draw by draw; its setting is the layer."""
    found = {}
    for count, method in dict.fromkeys((count, method) for _, count, method in outcomes):
        chosen = []
        for own in zip(*(outcomes[layer, count, method] for layer in layers), strict=True):
            best = max(range(len(layers)), key=lambda place, own=own: own[place].held_out)  # type: ignore[misc]
            chosen.append(own[best]._replace(setting=layers[best]))
        if not any(outcome.held_out != outcome.held_out for outcome in chosen):  # NaN: nothing was held out
            found[BEST, count, method] = chosen
    return found


def _result(layer: Any, count: int, method: str, outcomes: Sequence[Outcome], majority: float) -> ProbeResult:
    hits = torch.stack([outcome.hits for outcome in outcomes]).double()
    accuracy, held_out = hits.mean(1), sum(outcome.held_out for outcome in outcomes) / len(outcomes)
    return ProbeResult(
        method=method,
        labels_per_class=count,
        mean=float(accuracy.mean()),
        std=float(accuracy.std(correction=0)),
        draws=len(outcomes),
        layer=layer,
        held_out=held_out,
        chosen=tuple(outcome.setting for outcome in outcomes),
        majority=majority,
        test_items=hits.shape[1],
        hits=hits.mean(0).float().cpu(),
    )


@dataclass(frozen=True)
class Difference:
    """How much more often one model is right than another, on the same test items.

    Args:
        mean: accuracy of the first less that of the second.
        low: of the interval that holds 95% of the resampled differences.
        high: of it.
        p_value: two-sided: how often resampling loses the sign of the difference.
    """

    mean: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(first: Float[Tensor, " m"], second: Float[Tensor, " _"], samples: int = 10_000, seed: int = 0) -> Difference:
    """Compare two models on the same test items, by resampling the items (Koehn 2004, https://aclanthology.org/W04-3250).

    It tells how far the difference is owed to the choice of test items; what the draws of labelled items add is in their spread.

    Args:
        first: ``ProbeResult.hits`` of one model.
        second: of the other, item by item.
        samples: how often to resample.
        seed: of the resampling.

    Raises:
        ValueError: not the same number of items, or none.
    """
    if first.shape != second.shape or not len(first):
        raise ValueError(f"a paired comparison needs the same test items, got {len(first)} and {len(second)}.")
    difference, generator = (first - second).double(), torch.Generator().manual_seed(seed)
    size = max(2**22 // len(difference), 1)  # indices at a time
    means = []
    for start in range(0, samples, size):
        index = torch.randint(len(difference), (min(size, samples - start), len(difference)), generator=generator)
        means.append(difference[index].mean(1))
    drawn = torch.cat(means)
    low, high = torch.quantile(drawn, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return Difference(float(difference.mean()), low, high, min(1.0, 2 * (tail + 1) / (samples + 1)))
