"""Two classifiers of frozen features, each with a setting that is chosen on items held out of the labelled ones.

Letters in shapes: n labelled items, m scored items, d width, c classes, k candidates of the setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.07
MOST_FOLDS = 5
ENOUGH_HELD_OUT = 500
"""Held-out guesses that a setting is chosen on, where there are so many: with more, further folds are not worth their time."""
MOST_STEPS = 100
"""Of Newton's method, and of conjugate gradients within each."""
SIMILARITIES = 2**25
"""Of a block of scored items to all labelled ones, at most: 128 MiB."""
Labelled = tuple[Tensor, Tensor]
"""Features ``(n, d)`` and classes ``(n,)``."""
Classifier = Callable[[Labelled, Labelled, int, Sequence[float]], Float[Tensor, "k m"]]
"""Labelled items, items to score, number of classes, candidates of the setting -> for each candidate, the share of a hit for each item."""


class Outcome(NamedTuple):
    """What one classifier told.

    Args:
        hits: ``(m,)``, 1 for an item that was told right, 0 for one that was not, a share where several classes scored alike.
        held_out: accuracy on the held-out labelled items, with the chosen setting; NaN where none could be held out.
        setting: what was chosen.
    """

    hits: Tensor
    held_out: float
    setting: float


def classify(classifier: Classifier, labelled: Labelled, scored: Labelled, classes: int, settings: Sequence[float]) -> Outcome:
    """Choose the setting by cross-validation within the labelled items, learn from all of them, and score.

    Args:
        classifier: ``nearest_neighbours`` or ``logistic_regression``.
        labelled: in random order.
        scored: items that nothing is chosen on.
        classes: number of classes.
        settings: candidates; the first one is taken where a single labelled item of each class leaves none to hold out.
    """
    parts = [(classifier(rest, held, classes, settings), len(held[1])) for rest, held in folds(labelled)]
    if not parts:
        return Outcome(classifier(labelled, scored, classes, settings[:1])[0], float("nan"), settings[0])
    accuracy = torch.cat([hits for hits, _ in parts], 1).mean(1)
    best = int(accuracy.argmax())
    return Outcome(classifier(labelled, scored, classes, settings[best : best + 1])[0], float(accuracy[best]), settings[best])


def folds(labelled: Labelled) -> Iterator[tuple[Labelled, Labelled]]:
    """Yield pairs of labelled items, to learn from and held out: folds with equal shares of each class.

    There are five, or as many as the most frequent class has items; no more of them are used than it takes for ``ENOUGH_HELD_OUT``.
    """
    x, y = labelled
    place = torch.zeros_like(y)
    for label in y.unique():
        own = (y == label).nonzero()[:, 0]
        place[own] = torch.arange(len(own), device=y.device)
    count = min(MOST_FOLDS, int(place.max()) + 1) if len(y) else 0
    held_out = 0
    for fold in range(count if count > 1 else 0):
        if held_out >= ENOUGH_HELD_OUT:
            return
        held = place % count == fold
        held_out += int(held.sum())
        yield (x[~held], y[~held]), (x[held], y[held])


def fair_hits(scores: Float[Tensor, "m c"], y: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Return for each item what a guess is worth that takes one of the highest scores at random: 1, 0, or a share."""
    top = scores == scores.amax(1, keepdim=True)
    return top[torch.arange(len(y), device=y.device), y] / top.sum(1)


def nearest_neighbours(labelled: Labelled, scored: Labelled, classes: int, settings: Sequence[float]) -> Tensor:
    """Vote of the ``k`` nearest neighbours by cosine similarity, weighted by exp(similarity / 0.07) (https://arxiv.org/abs/1805.01978).

    As DINO evaluates it (k 20, https://arxiv.org/abs/2104.14294). Neighbours that are equally far at the end of the list count in their
    order, so the labelled items are to be in random order.
    """
    (x, y), (x_scored, y_scored) = labelled, scored
    x, x_scored = F.normalize(x, dim=1), F.normalize(x_scored, dim=1)
    counts = [min(int(k), len(y)) for k in settings]
    hits = []
    for own, y_own in zip(x_scored.split(max(SIMILARITIES // len(y), 1)), y_scored.split(max(SIMILARITIES // len(y), 1)), strict=True):
        similarity, index = (own @ x.T).topk(max(counts), dim=1)
        weight, voted = (similarity / TEMPERATURE).exp(), y[index]
        votes = [own.new_zeros(len(own), classes).scatter_add_(1, voted[:, :k], weight[:, :k]) for k in counts]
        hits.append(torch.stack([fair_hits(each, y_own) for each in votes]))
    return torch.cat(hits, 1) if hits else x.new_zeros(len(settings), 0)


def logistic_regression(labelled: Labelled, scored: Labelled, classes: int, settings: Sequence[float]) -> Tensor:
    """Multinomial logistic regression; half a decay times the squared weights joins the summed loss (scikit-learn: C = 1 / decay)."""
    (x, y), (x_scored, y_scored) = labelled, scored
    basis, spread = _principal_axes(x)  # a rotation: the weights stay as long as they are
    x, x_scored = x @ basis, x_scored @ basis
    weight, bias = x.new_zeros(x.shape[1], classes), x.new_zeros(classes)
    hits = x.new_zeros(len(settings), len(y_scored))
    for place in sorted(range(len(settings)), key=lambda place: -settings[place]):  # each starts from the smaller weights before it
        weight, bias = _fit((x, y), weight, bias, settings[place], spread)
        hits[place] = fair_hits(x_scored @ weight + bias, y_scored)
    return hits


def _principal_axes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the axes ``(d, r)`` of the space that the items lie in, and the sum of their squares along each ``(r,)``."""
    few = len(x) < x.shape[1]
    exact = x.double()
    squares, axes = torch.linalg.eigh(exact @ exact.T if few else exact.T @ exact)
    there = squares > 1e-9 * squares.sum()
    squares, axes = squares[there], axes[:, there]
    return (exact.T @ axes / squares.sqrt() if few else axes).to(x.dtype), squares.to(x.dtype)


def _fit(labelled: Labelled, weight: Tensor, bias: Tensor, decay: float, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights and bias, by Newton's method in units in which the loss curves alike along all axes: else steps take long."""
    (x, y), share = labelled, 1 / weight.shape[1]
    curvature = share * (1 - share)  # of the loss of a guess that knows nothing
    unit = torch.cat([(len(x) / (curvature * spread + decay)).sqrt(), spread.new_tensor([curvature**-0.5])])[:, None]
    x = torch.cat([x, x.new_ones(len(x), 1)], 1) * unit.T
    penalty = decay / len(x) * unit.square()
    penalty[-1] = 0  # of the bias
    tolerance = 1e-4 * min(1.0, decay**0.5)  # with little decay the loss is small, and flat
    found = _newton(x, y, penalty, torch.cat([weight, bias[None]]) / unit, tolerance) * unit
    return found[:-1], found[-1]


def _newton(x: Tensor, y: Tensor, penalty: Tensor, weight: Tensor, tolerance: float) -> Tensor:
    """Return the weights ``(d, c)`` of the least mean cross-entropy and half ``penalty (d, 1)`` times their squares.

    Steps are found by conjugate gradients as exactly as they deserve, and shortened until the loss falls enough (Nocedal and Wright,
    Numerical Optimization, algorithm 7.1).
    """

    def loss_of(weight: Tensor) -> tuple[float, Tensor]:
        scores = x @ weight
        return float(F.cross_entropy(scores, y) + (penalty * weight.square()).sum() / 2), scores

    loss, scores = loss_of(weight)
    for _ in range(MOST_STEPS):
        guess = scores.softmax(1)
        gradient = x.T @ (guess - F.one_hot(y, weight.shape[1])) / len(x) + penalty * weight
        if float(gradient.abs().max()) <= tolerance:
            break
        step = _conjugate_gradients(partial(_curved, x, guess, penalty), -gradient)
        slope, length = float((gradient * step).sum()), 1.0
        while (found := loss_of(weight + length * step))[0] > loss + 1e-4 * length * slope and length > 1e-3:
            length /= 2
        if found[0] >= loss:  # as far as the precision of the numbers goes
            break
        weight, (loss, scores) = weight + length * step, found
    return weight


def _curved(x: Tensor, guess: Tensor, penalty: Tensor, step: Tensor) -> Tensor:
    """Return the second derivative of the loss times a step."""
    scores = x @ step
    return x.T @ (guess * (scores - (guess * scores).sum(1, keepdim=True))) / len(x) + penalty * step


def _conjugate_gradients(curved: Callable[[Tensor], Tensor], target: Tensor) -> Tensor:
    """Solve ``curved(step) = target`` to a remainder of its norm times at most a half, and less the smaller the target is."""
    step, rest, direction = torch.zeros_like(target), target, target
    square = float(rest.square().sum())
    enough = square * min(0.25, square**0.5)
    for _ in range(MOST_STEPS):
        along = curved(direction)
        bend = float((direction * along).sum())
        if bend <= 0:  # flat within the precision of the numbers
            break
        step, rest = step + square / bend * direction, rest - square / bend * along
        before, square = square, float(rest.square().sum())
        if square <= enough:
            break
        direction = rest + square / before * direction
    return step if step.any() else target
