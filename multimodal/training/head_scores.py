"""The scores of several heads, each by its kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from torch import Tensor, nn
from torchmetrics import Metric

from multimodal.heads import ClassificationHead, TaggingHead
from multimodal.training.scores import ClassScores
from multimodal.training.tag_scores import TagScores


class HeadScores(Metric):
    """Those of classes for heads of one label, and those of rankings for heads of several; see ``ClassScores`` and ``TagScores``.

    Args:
        heads: head name -> head. With several, the names of scores carry those of the heads.
    """

    full_state_update = False

    def __init__(self, heads: Mapping[str, ClassificationHead]) -> None:
        super().__init__()
        sizes = {name: head.num_classes for name, head in heads.items()}
        tagging = [name for name, head in heads.items() if isinstance(head, TaggingHead)]
        classes = {name: size for name, size in sizes.items() if name not in tagging}
        self.metrics = nn.ModuleList()
        for kind, own in ((ClassScores, classes), (TagScores, {name: sizes[name] for name in tagging})):
            if own:
                self.metrics.append(kind(own, named=len(heads) > 1))

    def _each(self) -> Iterable[ClassScores | TagScores]:
        return cast(Iterable[ClassScores | TagScores], self.metrics)

    def update(self, name: str, loss: Tensor, guesses: Tensor, labels: Tensor) -> None:
        """Add what one head said of the labelled samples of one batch.

        Args:
            name: of the head.
            loss: scalar, the sum over the samples.
            guesses: as the head's ``guesses`` returns them.
            labels: rows as the head's ``told`` returns them.
        """
        next(metric for metric in self._each() if name in metric.num_classes).update(name, loss, guesses, labels)

    def compute(self) -> dict[str, Tensor]:
        """Return score name -> value."""
        return {name: value for metric in self._each() for name, value in metric.compute().items()}

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        for metric in self._each():
            metric.reset()
