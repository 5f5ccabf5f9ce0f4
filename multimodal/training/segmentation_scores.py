"""How well classes of places are told: counts of all pairs of classes, exact over batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


class SegmentationScores(Metric):
    """Mean intersection over union, accuracy of the pixels, mean accuracy of the classes, and the IoU of each class.

    The IoU of a class is counted over all pixels of all images, and not image by image (as PASCAL VOC, ADE20K and mmseg do). A class that
    is neither labelled nor guessed anywhere has none, and is left out of the mean.

    Args:
        num_classes: number of classes.
        names: of the classes, to show the IoU of each; None: only the means are shown.
    """

    full_state_update = False
    loss: Tensor
    pairs: Tensor

    def __init__(self, num_classes: int, names: Sequence[str] | None = None) -> None:
        super().__init__()
        self.num_classes, self.names = num_classes, names
        self.add_state("loss", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("pairs", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, loss: Tensor, guesses: Tensor, labels: Tensor) -> None:
        """Add the labelled pixels of a batch.

        Args:
            loss: scalar, the sum over them.
            guesses: ``(pixels,)`` int64, the most likely classes.
            labels: ``(pixels,)`` int64, the true classes.
        """
        pairs = torch.bincount(labels * self.num_classes + guesses, minlength=self.num_classes**2)
        self.pairs = self.pairs + pairs.view(self.num_classes, self.num_classes)
        self.loss = self.loss + loss.detach()

    def compute(self) -> dict[str, Tensor]:
        """Return loss, mean_iou, pixel_accuracy, mean_accuracy and pixels, and with names ``iou/<name>``; nothing for no pixels."""
        count = self.pairs.sum()
        if count == 0:
            return {}
        right, labelled, guessed = self.pairs.diagonal().double(), self.pairs.sum(1), self.pairs.sum(0)
        union = labelled + guessed - right
        iou = right / union  # NaN where a class is nowhere
        scores = {
            "loss": self.loss / count,
            "mean_iou": iou.nanmean(),
            "pixel_accuracy": right.sum() / count,
            "mean_accuracy": (right / labelled).nanmean(),
            "pixels": count,
        }
        if self.names is not None:
            scores |= {f"iou/{name}": iou[number] for number, name in enumerate(self.names) if union[number] > 0}
        return {name: value.float() for name, value in scores.items()}
