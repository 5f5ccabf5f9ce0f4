"""How much of a label can be read from features that never saw it.

Letters in shapes: n items, m test items, d width, c classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ProbeResult:
    """Accuracy of one probe.

    Args:
        method: "knn" or "linear".
        labels_per_class: labelled items of each class; 0: all.
        mean: accuracy, the mean over draws of the labelled items.
        std: standard deviation over the draws.
        draws: number of draws.
    """

    method: str
    labels_per_class: int
    mean: float
    std: float
    draws: int


def probe(
    train: tuple[Float[Tensor, "n d"], Int[Tensor, " n"]],
    test: tuple[Float[Tensor, "m d"], Int[Tensor, " m"]],
    labels_per_class: Sequence[int] = (10, 100),
    draws: int = 5,
) -> list[ProbeResult]:
    """Score k-nearest neighbours and a linear classifier on frozen features, for several numbers of labels.

    Features are standardised with the statistics of all training items, whose labels that does not need.

    Args:
        train: features and labels to draw the labelled items from.
        test: features and labels to score.
        labels_per_class: how many labelled items of each class; 0: all. Classes with fewer give what they have.
        draws: seeded draws of the labelled items (1 where all are taken).
    """
    (x, y), (x_test, y_test) = train, test
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    x, x_test = (x - mean) / std, (x_test - mean) / std
    classes = int(torch.cat([y, y_test]).max()) + 1
    results = []
    for count in labels_per_class:
        chosen = [_draw(y, count, seed) for seed in range(draws if count else 1)]
        scores = {
            "knn": [_knn_accuracy(x[i], y[i], x_test, y_test, classes, neighbours=1 if 0 < count <= 10 else 20) for i in chosen],
            "linear": [_linear_accuracy(x[i], y[i], x_test, y_test, classes) for i in chosen],
        }
        for method, values in scores.items():
            spread = torch.tensor(values)
            results.append(ProbeResult(method, count, float(spread.mean()), float(spread.std(correction=0)), len(values)))
    return results


def _draw(labels: Tensor, count: int, seed: int) -> Tensor:
    """Return the indices of ``count`` items of each class, or of all items for 0."""
    if count == 0:
        return torch.arange(len(labels))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return torch.cat([order[labels[order] == label][:count] for label in labels.unique()])


def _knn_accuracy(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, classes: int, neighbours: int) -> float:
    """Vote of the nearest neighbours by cosine similarity, weighted by exp(similarity / 0.07) (https://arxiv.org/abs/1805.01978)."""
    similarity = F.normalize(x_test, dim=1) @ F.normalize(x, dim=1).T
    nearest, index = similarity.topk(min(neighbours, len(x)), dim=1)
    votes = torch.zeros(len(x_test), classes).scatter_add_(1, y[index], (nearest / 0.07).exp())
    return float((votes.argmax(1) == y_test).float().mean())


def _linear_accuracy(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor, classes: int, decay: float = 1.0) -> float:
    """Multinomial logistic regression; ``decay / 2`` times the squared weights joins the summed loss (scikit-learn: C = 1)."""
    weight, bias = torch.zeros(x.shape[1], classes, requires_grad=True), torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-4)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, y) + decay / 2 * weight.square().sum() / len(x)
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return float(((x_test @ weight + bias).argmax(1) == y_test).float().mean())
