"""How well pairs are found in a whole split, exact over batches and ranks."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from multimodal.heads.retrieval import Embeddings, Similarity, turned
from multimodal.heads.retrieval_search import rank_pairs


class RetrievalScores(Metric):
    """Loss and the number of pairs; and what the embeddings of all of them say, or in training what those of a batch say.

    Of a whole split: the shares of items whose partner is among the first 1, 5 and 10 of all (``recall_1``), the median of its rank and
    the mean of one by its rank, in both directions (``recall_1/<first>_to_<second>``), and the mean share ``recall_1`` of both. Items of
    equal content are right for each other's partners, and ties are reckoned as chance: see ``multimodal.heads.retrieval_search``. All
    embeddings since the last reset are kept in main memory, in every process.

    Args:
        names: of both kinds.
        similarity: of items of the first kind to those of the second.
        whole: whether embeddings are kept and ranked; if not, ``accuracy`` is the share of items whose partner wins its batch.
    """

    full_state_update = False
    loss: Tensor
    counts: Tensor

    def __init__(self, names: tuple[str, str], similarity: Similarity, whole: bool) -> None:
        super().__init__()
        self.names, self.similarity, self.whole = names, similarity, whole
        self.add_state("loss", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(3, dtype=torch.int64), dist_reduce_fx="sum")  # losses, right answers, pairs
        self._kept: list[tuple[Embeddings, Embeddings, Tensor]] = []  # of all processes, each of which has them all: no state to sync

    def update(self, loss: Tensor, count: Tensor, correct: Tensor, pairs: int) -> None:
        """Add the losses of a batch; all numbers are of this process.

        Args:
            loss: scalar, the sum.
            count: int64 scalar, how many losses.
            correct: int64 scalar, how many partners win.
            pairs: of the batch.
        """
        self.loss = self.loss + loss.detach()
        self.counts = self.counts + torch.stack([count, correct, torch.full_like(count, pairs)])

    def keep(self, first: Embeddings, second: Embeddings, contents: Tensor) -> None:
        """Keep the pairs of a batch, those of all processes, to rank them.

        Args:
            first: of the first kind.
            second: of the second kind, in the same order.
            contents: ``(pairs, 2)`` int64.
        """
        stored = [Embeddings(x.vectors.detach(), x.lengths).to("cpu") for x in (first, second)]
        self._kept.append((stored[0], stored[1], contents.cpu()))

    def compute(self) -> dict[str, Tensor]:
        """Return the scores; nothing for no pairs.

        Raises:
            ValueError: an embedding is not finite.
        """
        count, correct, pairs = self.counts.unbind()
        if pairs == 0:
            return {}
        scores = {"loss": (self.loss / count).float(), "pairs": pairs.float()}
        if not self.whole:
            return scores | {"accuracy": correct / count}
        firsts, seconds, contents = zip(*self._kept, strict=True)
        first, second = (Embeddings.join(side).to(self.device) for side in (firsts, seconds))
        both = torch.cat(contents).to(self.device)
        scores |= self._directed(self.names, rank_pairs(first, second, both, self.similarity).scores())
        scores |= self._directed(self.names[::-1], rank_pairs(second, first, both.flip(1), turned(self.similarity)).scores())
        return scores | {"recall_1": torch.stack([scores[f"recall_1/{a}_to_{b}"] for a, b in (self.names, self.names[::-1])]).mean()}

    def _directed(self, names: tuple[str, ...], scores: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"{score}/{names[0]}_to_{names[1]}": value for score, value in scores.items()}

    def reset(self) -> None:
        """Forget all pairs."""
        super().reset()
        self._kept = []
