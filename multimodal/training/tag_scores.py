"""How well several labels of a sample are told: rankings of all samples by each label, exact over batches and ranks.

Letters in shapes: s samples, c classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

AT_ONCE = 64
"""Classes that are ranked together: what is sorted takes a few times the memory of the logits."""


class TagScores(Metric):
    """Loss, mean average precision, mean area under the ROC curve and d-prime of several heads.

    The mean average precision (mAP, macro) is that of torchmetrics and scikit-learn: the area under the steps of precision over recall of a
    class, without interpolation; classes without a positive sample have none and are left out of the mean, as in evaluations on AudioSet.
    The ROC area also leaves out classes without a negative one. d-prime is the distance of two normal distributions with that mean area,
    and left out where this is 0 or 1. All samples since the last reset are kept: 8 bytes for each class of each.

    Args:
        num_classes: head name -> number of its classes.
        named: whether scores carry the name of their head (``mean_average_precision/<head>``); None: where there are several.
    """

    full_state_update = False

    def __init__(self, num_classes: Mapping[str, int], named: bool | None = None) -> None:
        super().__init__()
        self.num_classes = dict(num_classes)
        self.named = len(self.num_classes) > 1 if named is None else named
        for name in self.num_classes:
            self.add_state(f"loss_{name}", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"logits_{name}", [], dist_reduce_fx="cat")  # flat, as a rank without samples has nothing to say of their shape
            self.add_state(f"labels_{name}", [], dist_reduce_fx="cat")

    def update(self, name: str, loss: Tensor, logits: Float[Tensor, "s c"], labels: Tensor) -> None:
        """Add what one head said of the labelled samples of one batch.

        Args:
            name: of the head.
            loss: scalar, the sum over the samples.
            logits: or anything else that ranks the samples.
            labels: ``(s, c)``, 1 where a class is there, else 0.
        """
        getattr(self, f"logits_{name}").append(logits.detach().float().flatten())
        getattr(self, f"labels_{name}").append(labels.float().flatten())
        setattr(self, f"loss_{name}", getattr(self, f"loss_{name}") + loss.detach())

    def compute(self) -> dict[str, Tensor]:
        """Return loss, mean_average_precision, mean_roc_auc, d_prime and samples; if named of each head.

        Heads without labelled samples are left out, and so are scores that no class has.
        """
        scores: dict[str, Tensor] = {}
        for name, classes in self.num_classes.items():
            logits, labels = (self._joined(f"{what}_{name}").view(-1, classes) for what in ("logits", "labels"))
            if not len(logits):
                continue
            own = {"loss": (getattr(self, f"loss_{name}") / len(logits)).float(), **ranking_scores(logits, labels > 0)}
            own["samples"] = torch.tensor(float(len(logits)), device=logits.device)
            scores |= {f"{score}/{name}" if self.named else score: value for score, value in own.items()}
        return scores

    def _joined(self, state: str) -> Tensor:
        parts = getattr(self, state)
        return parts if isinstance(parts, Tensor) else torch.cat(parts) if parts else torch.zeros(0, device=self.device)


def ranking_scores(logits: Float[Tensor, "s c"], present: Tensor) -> dict[str, Tensor]:
    """Return mean_average_precision, mean_roc_auc and d_prime, as far as there are any.

    Args:
        logits: of at least one sample.
        present: ``(s, c)`` bool, the truth.
    """
    parts = [_ranked(own, truth) for own, truth in zip(logits.split(AT_ONCE, 1), present.split(AT_ONCE, 1), strict=True)]
    precision, area = (torch.cat(part) for part in zip(*parts, strict=True))
    found = {"mean_average_precision": precision.nanmean().float(), "mean_roc_auc": area.nanmean().float()}
    middle = found["mean_roc_auc"]
    if 0 < float(middle) < 1:
        found["d_prime"] = math.sqrt(2) * torch.special.ndtri(middle.double()).float()
    return {name: value for name, value in found.items() if not value.isnan()}


def _ranked(logits: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Return the average precision and the ROC area of each class, ``(c,)`` float64; NaN where it has none."""
    ordered, order = logits.sort(0, descending=True)
    truth = present.gather(0, order).double()
    rank = torch.arange(1, len(logits) + 1, dtype=torch.float64, device=logits.device)[:, None]
    found, total = truth.cumsum(0), truth.sum(0)
    last = torch.cat([ordered[1:] != ordered[:-1], torch.ones_like(present[:1])])  # of those with equal logits, which have one threshold
    first = torch.cat([torch.ones_like(present[:1]), last[:-1]])
    ends = torch.where(last, rank, torch.inf).flip(0).cummin(0).values.flip(0)
    starts = torch.where(first, rank, 0.0).cummax(0).values
    precision = found.gather(0, ends.long() - 1) / ends
    below = len(logits) + 1 - (starts + ends) / 2  # of a sample its mean rank among equals, counted from the lowest
    area = ((below * truth).sum(0) - total * (total + 1) / 2) / (total * (len(logits) - total))
    return (precision * truth).sum(0) / total, area
