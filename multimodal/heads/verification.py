"""Are two embeddings of the same speaker? How often that is decided wrongly, at every threshold.

Letters in shapes: s embeddings, l labels, e width, t trials, a answers, k thresholds.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


class Trials(NamedTuple):
    """Pairs of which is to be said whether they are of one class.

    Args:
        scores: ``(t,)`` float, the cosine of each pair.
        same: ``(t,)`` bool, whether it is of one class.
    """

    scores: Tensor
    same: Tensor


class ErrorRates(NamedTuple):
    """What is decided wrongly where pairs with at least a certain score are accepted, from the highest threshold to the lowest.

    Args:
        false_alarms: ``(k,)`` float64, share of the pairs of two classes that is accepted; 0 first, 1 last.
        misses: ``(k,)`` float64, share of the pairs of one class that is refused; 1 first, 0 last.
        thresholds: ``(k,)`` float64; infinity first.
    """

    false_alarms: Tensor
    misses: Tensor
    thresholds: Tensor


def all_pairs(embeddings: Float[Tensor, "s e"], labels: Int[Tensor, " l"]) -> Trials:
    """Return the trials of each embedding with each other one; there are s (s - 1) / 2 of them.

    Args:
        embeddings: of any length but 0.
        labels: the class of each.

    Raises:
        ValueError: there are not as many labels as embeddings, or no pair.
    """
    if len(labels) != len(embeddings) or len(labels) < 2:
        raise ValueError(f"at least 2 embeddings with a label each are needed, got {len(embeddings)} embeddings and {len(labels)} labels.")
    first, second = torch.triu_indices(len(labels), len(labels), 1, device=labels.device)
    directions = F.normalize(embeddings.float(), dim=1)
    return Trials((directions @ directions.T)[first, second], labels[first] == labels[second])


def listed_pairs(embeddings: Float[Tensor, "s e"], pairs: Int[Tensor, "t 2"], same: Bool[Tensor, " a"]) -> Trials:
    """Return the trials of a list, as benchmarks have one.

    Args:
        embeddings: of any length but 0.
        pairs: indices of two embeddings each.
        same: whether they are of one class.

    Raises:
        ValueError: an index is of no embedding, or there are not as many answers as pairs.
    """
    if len(pairs) != len(same):
        raise ValueError(f"there are {len(pairs)} pairs, and {len(same)} answers whether they are of one class.")
    wrong = ((pairs < 0) | (pairs >= len(embeddings))).nonzero()
    if len(wrong):
        trial, place = wrong[0].tolist()
        raise ValueError(f"pair {trial} names embedding {int(pairs[trial, place])}; there are {len(embeddings)}, the first is 0.")
    directions = F.normalize(embeddings.float(), dim=1)
    return Trials((directions[pairs[:, 0]] * directions[pairs[:, 1]]).sum(1), same)


def error_rates(trials: Trials) -> ErrorRates:
    """Return both kinds of error at every threshold; pairs with equal scores are accepted together.

    Raises:
        ValueError: there are no pairs of one class, or none of two, or a score is not finite.
    """
    scores, same = trials.scores.double(), trials.same
    targets, others = int(same.sum()), int((~same).sum())
    if not targets or not others:
        raise ValueError(f"pairs of one class and of two are needed, got {targets} and {others}.")
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("a score is not finite: was an embedding so?")
    scores, order = scores.sort(descending=True)
    last = torch.cat([scores[1:] != scores[:-1], scores.new_ones(1, dtype=torch.bool)])  # of those with the same score
    accepted = same[order].double().cumsum(0)[last]
    alarms = (~same[order]).double().cumsum(0)[last]
    start = scores.new_zeros(1)
    return ErrorRates(
        torch.cat([start, alarms / others]), torch.cat([start + 1, 1 - accepted / targets]), torch.cat([start + torch.inf, scores[last]])
    )


def equal_error_rate(trials: Trials) -> float:
    """Return the share of errors, in [0, 1], where misses and false alarms are equally frequent; between thresholds along a line.

    Raises:
        ValueError: as ``error_rates``.
    """
    rates = error_rates(trials)
    difference = rates.false_alarms - rates.misses  # from -1 to 1
    after = int((difference >= 0).nonzero()[0])
    below, above = difference[after - 1], difference[after]
    share = -below / (above - below)
    return float(torch.lerp(rates.false_alarms[after - 1], rates.false_alarms[after], share))


def minimum_detection_cost(trials: Trials, target_share: float = 0.01, miss_cost: float = 1.0, false_alarm_cost: float = 1.0) -> float:
    """Return the least cost of any threshold, as a share of what accepting all or none costs (minDCF of NIST's evaluations); at most 1.

    Args:
        trials: pairs.
        target_share: of pairs of one class where it is to be used, in (0, 1). VoxCeleb: 0.01 or 0.05.
        miss_cost: of a pair of one class that is refused, above 0.
        false_alarm_cost: of a pair of two that is accepted, above 0.

    Raises:
        ValueError: a setting outside its range; or as ``error_rates``.
    """
    if not 0 < target_share < 1 or min(miss_cost, false_alarm_cost) <= 0:
        wrong = f"{target_share}, {miss_cost} and {false_alarm_cost}"
        raise ValueError(f"target_share must be in (0, 1), and miss_cost and false_alarm_cost above 0, got {wrong}.")
    rates = error_rates(trials)
    of_misses, of_alarms = miss_cost * target_share, false_alarm_cost * (1 - target_share)
    return float((of_misses * rates.misses + of_alarms * rates.false_alarms).min() / min(of_misses, of_alarms))
