"""How close captions come to the true ones: BLEU-4, ROUGE-L and CIDEr, of a whole split, over ranks alike.

Captions are compared as lists of words: lower case, punctuation left out.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.text import bleu_score

WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
MAX_WORDS = 4
"""Of the sequences of words that BLEU-4 and CIDEr count."""
BETA = 1.2
"""Weight of recall against precision in ROUGE-L, as in the evaluation of COCO's captions."""
SIGMA = 6.0
"""Of the penalty for another length in CIDEr-D, in words."""


def words_of(caption: str) -> list[str]:
    """Return the words of a caption."""
    return WORD.findall(caption.lower())


def bleu(guesses: Sequence[str], truths: Sequence[str]) -> float:
    """Return BLEU-4 over all captions (https://aclanthology.org/P02-1040), without smoothing, in [0, 1]."""
    pairs = [(" ".join(words_of(guess)), [" ".join(words_of(truth))]) for guess, truth in zip(guesses, truths, strict=True)]
    return float(bleu_score([guess for guess, _ in pairs], [truth for _, truth in pairs], n_gram=MAX_WORDS))


def rouge_l(guess: str, truth: str) -> float:
    """Return ROUGE-L of one caption (https://aclanthology.org/W04-1013), in [0, 1]: by the longest common subsequence of words."""
    own, other = words_of(guess), words_of(truth)
    common = _longest_common(own, other)
    if not common:
        return 0.0
    precision, recall = common / len(own), common / len(other)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _longest_common(own: Sequence[str], other: Sequence[str]) -> int:
    row = [0] * (len(other) + 1)
    for word in own:
        before = row
        row = [0]
        for place, theirs in enumerate(other):
            row.append(before[place] + 1 if word == theirs else max(row[-1], before[place + 1]))
    return row[-1]


def cider(guesses: Sequence[str], truths: Sequence[str]) -> float:
    """Return CIDEr-D, the mean over all captions (https://arxiv.org/abs/1411.5726), in [0, 10].

    Sequences of one to four words count by how often they stand in a caption times the logarithm of how few of the true captions have
    them; compared are cosines, with counts cut to those of the true caption, and a penalty for another length. A single caption scores 0:
    nothing is rare in it.
    """
    if not truths:
        return 0.0
    known = [_sequences(truth) for truth in truths]
    frequency = Counter(sequence for counts in known for sequence in counts)
    weight = {sequence: math.log(len(truths)) - math.log(count) for sequence, count in frequency.items()}
    found = [_similarity(_sequences(guess), truth, weight, math.log(len(truths))) for guess, truth in zip(guesses, known, strict=True)]
    return sum(found) / len(found)


def _sequences(caption: str) -> Counter[tuple[str, ...]]:
    words = words_of(caption)
    return Counter(tuple(words[i : i + size]) for size in range(1, MAX_WORDS + 1) for i in range(len(words) - size + 1))


def _similarity(
    guess: Counter[tuple[str, ...]], truth: Counter[tuple[str, ...]], weight: dict[tuple[str, ...], float], unknown: float
) -> float:
    """Return 10 times the mean similarity over the lengths of sequences; those that no true caption has weigh ``unknown``."""
    lengths = [sum(count for sequence, count in counts.items() if len(sequence) == 1) for counts in (guess, truth)]
    penalty = math.exp(-((lengths[0] - lengths[1]) ** 2) / (2 * SIGMA**2))
    total = 0.0
    for size in range(1, MAX_WORDS + 1):
        own, other = (
            {sequence: count * weight.get(sequence, unknown) for sequence, count in counts.items() if len(sequence) == size}
            for counts in (guess, truth)
        )
        common = sum(min(value, other[sequence]) * other[sequence] for sequence, value in own.items() if sequence in other)
        norm = math.sqrt(sum(x * x for x in own.values()) * sum(x * x for x in other.values()))
        total += common / norm if norm else 0.0
    return 10 * penalty * total / MAX_WORDS


class CaptionScores(Metric):
    """Loss, and the scores of captions: ``bleu_4``, ``rouge_l`` (mean) and ``cider``. All captions are kept until the next reset."""

    full_state_update = False
    loss: Tensor
    count: Tensor
    texts: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("texts", [], dist_reduce_fx="cat")  # lines of JSON as bytes: what processes can exchange

    def update(self, loss: Tensor, count: Tensor, guesses: Sequence[str] = (), truths: Sequence[str] = ()) -> None:
        """Add a batch.

        Args:
            loss: scalar, the sum over the ids.
            count: int64 scalar, the ids.
            guesses: captions that were written; none in training.
            truths: as many, the true ones.
        """
        self.loss, self.count = self.loss + loss.detach(), self.count + count
        lines = "".join(json.dumps(pair) + "\n" for pair in zip(guesses, truths, strict=True))
        if lines:
            self.texts.append(torch.frombuffer(bytearray(lines.encode()), dtype=torch.uint8).to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """Return the scores; nothing for no captions, and no comparison where none were written."""
        if self.count == 0:
            return {}
        scores = {"loss": (self.loss / self.count).float()}
        parts = self.texts if isinstance(self.texts, list) else [self.texts]  # after an exchange it is one
        pairs = [json.loads(line) for part in parts for line in bytes(part.cpu().tolist()).decode().splitlines()]
        if pairs:
            guesses, truths = ([pair[place] for pair in pairs] for place in range(2))
            rouge = sum(rouge_l(guess, truth) for guess, truth in pairs) / len(pairs)
            found = {"bleu_4": bleu(guesses, truths), "rouge_l": rouge, "cider": cider(guesses, truths), "captions": float(len(pairs))}
            scores |= {name: torch.tensor(value, device=self.device) for name, value in found.items()}
        return scores
