"""How well transcripts are told: edits of characters and words, exact over batches and ranks."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric


def edit_distance(guess: Sequence[Hashable], truth: Sequence[Hashable]) -> int:
    """Return the fewest insertions, deletions and substitutions that turn one sequence into another (Levenshtein)."""
    numbers: dict[Hashable, int] = {}
    own, other = (np.array([numbers.setdefault(entry, len(numbers)) for entry in x], dtype=np.int64) for x in (guess, truth))
    places = np.arange(len(other) + 1)
    row = places  # edits between the guess so far and each start of the truth
    for number, entry in enumerate(own, 1):
        without_insertions = np.append(number, np.minimum(row[1:] + 1, row[:-1] + (other != entry)))
        row = np.minimum.accumulate(without_insertions - places) + places
    return int(row[-1])


class TranscriptionScores(Metric):
    """Loss, character error rate and word error rate.

    A rate is the number of edits that turn the guesses into the true transcripts, over that of the characters (or words between white
    space) of the true ones, summed over all transcripts: it can be above 1.
    """

    full_state_update = False
    loss: Tensor
    counts: Tensor

    STATES = ("ids", "transcripts", "left_out", "character_edits", "characters", "word_edits", "words")

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(len(self.STATES), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, loss: Tensor, ids: Tensor, transcripts: int, left_out: int) -> None:
        """Add the loss of a batch.

        Args:
            loss: scalar, the sum over the transcripts that it was made of.
            ids: scalar, the number of their ids.
            transcripts: those of the batch, also the ones left out.
            left_out: transcripts too long for a loss.
        """
        self.loss = self.loss + loss.detach()
        self._add(ids=int(ids), transcripts=transcripts, left_out=left_out)

    def update_texts(self, guesses: Sequence[str], truths: Sequence[str]) -> None:
        """Add the edits of a batch of transcripts."""
        for guess, truth in zip(guesses, truths, strict=True):
            own, other = guess.split(), truth.split()
            self._add(
                character_edits=edit_distance(guess, truth),
                characters=len(truth),
                word_edits=edit_distance(own, other),
                words=len(other),
            )

    def _add(self, **counts: int) -> None:
        self.counts = self.counts + self.counts.new_tensor([counts.get(name, 0) for name in self.STATES])

    def compute(self) -> dict[str, Tensor]:
        """Return loss, the two rates, transcripts and left_out; nothing for no transcripts, and no rates where no texts were compared."""
        count = dict(zip(self.STATES, self.counts, strict=True))
        if count["transcripts"] == 0:
            return {}
        scores = {"transcripts": count["transcripts"].float(), "left_out": count["left_out"].float()}
        if count["ids"] > 0:
            scores["loss"] = (self.loss / count["ids"]).float()
        for name, unit in (("character_error_rate", "character"), ("word_error_rate", "word")):
            if count[f"{unit}s"] > 0:
                scores[name] = count[f"{unit}_edits"] / count[f"{unit}s"]
        return scores
