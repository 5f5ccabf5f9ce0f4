"""How well answers are told: exact match and F1 as SQuAD's own script computes them, exact over batches and ranks."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """Return an answer in lower case, without the punctuation of ASCII, without English articles, words parted by single blanks."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(guess: str, truth: str) -> float:
    """Return 1 where two answers are the same once normalised, else 0."""
    return float(normalized(guess) == normalized(truth))


def overlap_f1(guess: str, truth: str) -> float:
    """Return the F1 of the words of a guess, in [0, 1]; of an empty answer 1 where the other is empty too, else 0."""
    own, other = normalized(guess).split(), normalized(truth).split()
    if not own or not other:
        return float(own == other)
    common = sum((Counter(own) & Counter(other)).values())
    return 2 * common / (len(own) + len(other))


class AnswerScores(Metric):
    """Loss, exact match and F1 of questions, of several true answers the best; and of those with an answer, where some have none.

    A question that has no answer is right where none is told. ``f1_answerable`` and ``accuracy_unanswerable`` say both kinds apart.
    """

    full_state_update = False
    loss: Tensor
    sums: Tensor

    STATES = ("windows", "questions", "exact_match", "f1", "answerable", "f1_answerable", "unanswerable", "silent")

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(len(self.STATES), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, loss: Tensor, windows: int) -> None:
        """Add the loss of a batch: the sum over so many windows."""
        self.loss = self.loss + loss.detach()
        self._add(windows=windows)

    def update_answer(self, guess: str, truths: Sequence[str]) -> None:
        """Add what was told of one question.

        Args:
            guess: "": that there is no answer.
            truths: answers that normalise to nothing do not count; without any others there is none.
        """
        truths = [truth for truth in truths if normalized(truth)] or [""]
        match, f1 = (max(score(guess, truth) for truth in truths) for score in (exact_match, overlap_f1))
        there = truths != [""]
        self._add(questions=1, exact_match=match, f1=f1, answerable=there, f1_answerable=f1 * there)
        self._add(unanswerable=not there, silent=match * (not there))

    def _add(self, **sums: float) -> None:
        self.sums = self.sums + self.sums.new_tensor([float(sums.get(name, 0)) for name in self.STATES])

    def compute(self) -> dict[str, Tensor]:
        """Return loss, exact_match, f1 and questions; f1_answerable and accuracy_unanswerable where there are both kinds."""
        total = dict(zip(self.STATES, self.sums, strict=True))
        scores = {"loss": (self.loss / total["windows"]).float()} if total["windows"] > 0 else {}
        if total["questions"] > 0:
            scores |= {name: (total[name] / total["questions"]).float() for name in ("exact_match", "f1")}
            scores["questions"] = total["questions"].float()
        if total["answerable"] > 0 and total["unanswerable"] > 0:
            scores["f1_answerable"] = (total["f1_answerable"] / total["answerable"]).float()
            scores["accuracy_unanswerable"] = (total["silent"] / total["unanswerable"]).float()
        return scores
