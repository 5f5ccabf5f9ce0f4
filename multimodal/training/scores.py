"""Scores that are exact over batches and ranks: sums and counts are kept, not averages."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from multimodal.objectives import Term


class MaskedScores(Metric):
    """Loss, accuracy and number of predictions, by modality; accuracy also by field where a token has several, and not where it has none.

    Args:
        fields: modality name -> names of the fields of its tokens.
    """

    full_state_update = False

    def __init__(self, fields: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.fields = dict(fields)
        for name, names in self.fields.items():
            self.add_state(f"loss_{name}", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"count_{name}", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
            self.add_state(f"correct_{name}", torch.zeros(len(names), dtype=torch.int64), dist_reduce_fx="sum")
            self.add_state(f"asked_{name}", torch.zeros(len(names), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, name: str, term: Term) -> None:
        """Add the predictions of one modality in one batch."""
        setattr(self, f"loss_{name}", getattr(self, f"loss_{name}") + term.loss.detach())
        setattr(self, f"count_{name}", getattr(self, f"count_{name}") + term.count)
        setattr(self, f"correct_{name}", getattr(self, f"correct_{name}") + term.correct)
        setattr(self, f"asked_{name}", getattr(self, f"asked_{name}") + (term.count if term.asked is None else term.asked))

    def compute(self) -> dict[str, Tensor]:
        """Return score name -> value; modalities and fields without predictions are left out."""
        scores = {}
        for name, names in self.fields.items():
            count = getattr(self, f"count_{name}")
            if count == 0:
                continue
            scores[f"loss/{name}"] = (getattr(self, f"loss_{name}") / count).float()
            accuracy = self.accuracy(name)
            if accuracy.isfinite().any():
                scores[f"accuracy/{name}"] = accuracy.nanmean()
            scores[f"tokens/{name}"] = count.float()
            if len(names) > 1:
                scores |= {f"accuracy/{name}_{field}": x for field, x in zip(names, accuracy, strict=True) if not x.isnan()}
        return scores

    def accuracy(self, name: str) -> Tensor:
        """Return ``(k,)`` float32, the accuracy of each field of one modality; NaN where nothing was to be predicted."""
        return (getattr(self, f"correct_{name}") / getattr(self, f"asked_{name}")).float()


class ClassScores(Metric):
    """Loss, accuracy and macro F1 of the classes of several heads.

    The macro F1 is the mean over the classes that are labelled or guessed at least once, as in torchmetrics.

    Args:
        num_classes: head name -> number of its classes.
        named: whether scores carry the name of their head (``accuracy/<head>``); None: where there are several.
    """

    full_state_update = False

    def __init__(self, num_classes: Mapping[str, int], named: bool | None = None) -> None:
        super().__init__()
        self.num_classes = dict(num_classes)
        self.named = len(self.num_classes) > 1 if named is None else named
        for name, classes in self.num_classes.items():
            self.add_state(f"loss_{name}", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"counts_{name}", torch.zeros(3, classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, name: str, loss: Tensor, guesses: Tensor, labels: Tensor) -> None:
        """Add what one head said of the labelled samples of one batch.

        Args:
            name: of the head.
            loss: scalar, the sum over the samples.
            guesses: ``(samples,)`` int64, the most likely classes.
            labels: ``(samples,)`` int64, the true classes.
        """
        groups = (labels, guesses, labels[guesses == labels])
        counts = torch.stack([torch.bincount(x, minlength=self.num_classes[name]) for x in groups])
        setattr(self, f"counts_{name}", getattr(self, f"counts_{name}") + counts)
        setattr(self, f"loss_{name}", getattr(self, f"loss_{name}") + loss.detach())

    def compute(self) -> dict[str, Tensor]:
        """Return loss, accuracy, macro_f1 and samples; if named of each head (``accuracy/<head>``), and the mean accuracy of all.

        Heads without labelled samples are left out.
        """
        scores = {}
        for name in self.num_classes:
            labelled, guessed, right = getattr(self, f"counts_{name}")
            count = labelled.sum()
            if count == 0:
                continue
            f1 = 2 * right / (labelled + guessed).clamp(min=1)
            scores[f"loss/{name}"] = (getattr(self, f"loss_{name}") / count).float()
            scores[f"accuracy/{name}"] = right.sum() / count
            scores[f"macro_f1/{name}"] = f1[(labelled + guessed) > 0].mean()
            scores[f"samples/{name}"] = count.float()
        if not self.named:
            return {name.partition("/")[0]: value for name, value in scores.items()}
        accuracies = [value for name, value in scores.items() if name.startswith("accuracy/")]
        return scores | ({"accuracy": torch.stack(accuracies).mean()} if accuracies else {})


class CodebookUse(Metric):
    """How a tokenizer uses its ids: share of ids used, perplexity, ids never used.

    Args:
        vocab_size: number of ids.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(vocab_size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, ids: Tensor) -> None:
        """Count ids."""
        self.counts = self.counts + torch.bincount(ids.flatten(), minlength=len(self.counts))

    def compute(self) -> dict[str, Tensor]:
        """Return usage (share of ids seen), perplexity (the number of ids, if all were used equally) and dead codes."""
        share = self.counts / self.counts.sum().clamp(min=1)
        return {
            "usage": (self.counts > 0).float().mean(),
            "perplexity": torch.exp(-(share * share.clamp(min=1e-12).log()).sum()),
            "dead_codes": (self.counts == 0).sum().float(),
        }
