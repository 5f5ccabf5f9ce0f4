"""The most similar of many items, and the ranks of the right ones, all found exactly and in blocks.

Letters in shapes: q questions, c answers, k found, p pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multimodal.heads.retrieval import Embeddings, Similarity, inner_products


class Found(NamedTuple):
    """The most similar items, the best first.

    Args:
        scores: ``(q, k)`` float32.
        places: ``(q, k)`` int64, their numbers; of equal ones the lower number comes first.
    """

    scores: Tensor
    places: Tensor


class Ranks(NamedTuple):
    """Where the first right answer of each question stands. A rank among equal scores is a matter of chance, and reckoned so.

    Args:
        above: ``(p,)`` int64, wrong answers with a higher score than the best right one.
        wrong: ``(p,)`` int64, wrong answers with the same score.
        right: ``(p,)`` int64, right answers with that score, at least 1.
    """

    above: Tensor
    wrong: Tensor
    right: Tensor

    @property
    def expected(self) -> Float[Tensor, " p"]:
        """The expected rank, from 1, where equal scores stand in random order; float64."""
        return 1 + self.above + self.wrong.double() / (self.right + 1)

    def recall(self, k: int) -> Float[Tensor, ""]:
        """Return the expected share of the questions with a right answer among the first ``k``; float64."""
        places = (k - self.above).clamp(min=0).double()  # left for those with the score of the best right one
        wrong, right = self.wrong.double(), self.right.double()
        all_wrong = _log_choose(wrong, places) - _log_choose(wrong + right, places)
        missed = torch.where(places > wrong, torch.zeros_like(wrong), all_wrong.exp())
        return 1 - missed.mean()

    def scores(self) -> dict[str, Tensor]:
        """Return recall_1, recall_5, recall_10, median_rank and mean_reciprocal_rank, of at least one question; float32.

        The last two are of expected ranks. The median of an even number of questions is the mean of the middle two.
        """
        expected = self.expected
        found = {f"recall_{k}": self.recall(k) for k in (1, 5, 10)}
        found |= {"median_rank": expected.quantile(0.5), "mean_reciprocal_rank": expected.reciprocal().mean()}
        return {name: value.float() for name, value in found.items()}


def _log_choose(n: Tensor, k: Tensor) -> Tensor:
    """Return the logarithm of the binomial coefficient; what stands where k > n means nothing."""
    k = torch.minimum(k, n)
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)


@torch.no_grad()
def nearest(queries: Embeddings, candidates: Embeddings, k: int = 10, similarity: Similarity = inner_products, block: int = 1024) -> Found:
    """Return the ``k`` most similar candidates of each query; all where there are fewer.

    Args:
        queries: at least one.
        candidates: at least one, on the same device. ``Embeddings.of_items(torch.from_numpy(array))`` makes them of what `predict` writes.
        k: at least 1.
        similarity: of queries to candidates: a head's ``similarity``.
        block: queries, and candidates, that are compared at a time; memory grows with its square.

    Raises:
        ValueError: ``k`` or ``block`` is below 1, there are no candidates, or the vectors have different widths.
    """
    if k < 1 or block < 1:
        raise ValueError(f"k and block must be at least 1, got {k} and {block}.")
    if not len(candidates) or not len(queries):
        raise ValueError(f"queries and candidates are needed, got {len(queries)} and {len(candidates)}.")
    if queries.vectors.shape[1] != candidates.vectors.shape[1]:
        raise ValueError(f"queries have {queries.vectors.shape[1]} values a vector, candidates {candidates.vectors.shape[1]}.")
    parts = [_nearest(own, candidates.blocks(block), k, similarity) for own in queries.blocks(block)]
    return Found(torch.cat([part.scores for part in parts]), torch.cat([part.places for part in parts]))


def _nearest(queries: Embeddings, blocks: list[Embeddings], k: int, similarity: Similarity) -> Found:
    device = queries.vectors.device
    scores, index = torch.zeros(len(queries), 0, device=device), torch.zeros(len(queries), 0, dtype=torch.int64, device=device)
    first = 0
    for block in blocks:
        numbers = torch.arange(first, first + len(block), device=device).expand(len(queries), -1)
        scores, index = torch.cat([scores, similarity(queries, block)], 1), torch.cat([index, numbers], 1)
        scores, order = (x[:, :k] for x in scores.sort(dim=1, descending=True, stable=True))  # found before: of lower numbers
        index, first = index.gather(1, order), first + len(block)
    return Found(scores, index)


@torch.no_grad()
def rank_pairs(
    first: Embeddings,
    second: Embeddings,
    contents: Int[Tensor, "p 2"] | None = None,
    similarity: Similarity = inner_products,
    block: int = 256,
) -> Ranks:
    """Return the rank of the right one of all second items, for each first item: item i belongs to item i.

    What has the same content is the same: right answers of a question are those of all its pairs, and all that are equal to one of these.
    Equal items get one score, so that their ties are exact.

    Args:
        first: questions.
        second: as many answers.
        contents: number of the content of each question and of each answer; None: no two are equal.
        similarity: of questions to answers.
        block: questions that are compared with all answers at a time.

    Raises:
        ValueError: there is no pair, there are not as many of both or of the contents, or a similarity is not finite.
    """
    count = len(first)
    if contents is None:
        contents = torch.arange(count, device=first.lengths.device)[:, None].expand(-1, 2)
    if not count or len(second) != count or len(contents) != count:
        raise ValueError(f"pairs are needed, got {count} first items, {len(second)} second ones and contents of {len(contents)} pairs.")
    questions, question, _ = _distinct(contents[:, 0])
    answers, answer, times = _distinct(contents[:, 1])
    asked, given = first.select(questions), second.select(answers)
    parts = []
    for number, own in enumerate(asked.blocks(block)):
        right = torch.zeros(len(own), len(given), dtype=torch.bool, device=question.device)
        here = question // block == number
        right[question[here] % block, answer[here]] = True
        parts.append(_rank(similarity(own, given), right, times))
    return Ranks(*(torch.cat(column)[question] for column in zip(*parts, strict=True)))


def _rank(scores: Tensor, right: Tensor, times: Tensor) -> Ranks:
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("a similarity is not finite: was an embedding so?")
    best = scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
    above, equal = (scores > best) & ~right, scores == best
    return Ranks(*((chosen * times).sum(1) for chosen in (above, equal & ~right, equal & right)))


def _distinct(contents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first item of each content, the content of each item as a number from 0, and how often each is there."""
    values, number, times = contents.unique(return_inverse=True, return_counts=True)
    index = torch.arange(len(contents), device=contents.device)
    firsts = torch.full_like(values, len(contents)).scatter_reduce(0, number, index, "amin")
    return firsts, number, times
