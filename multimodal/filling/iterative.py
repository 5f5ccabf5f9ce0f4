"""Fill in hidden ids over several rounds.

Letters in shapes: n tokens of all items end to end, i items, k fields, m tokens with a hidden field, u units: tokens, or their fields.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multimodal.filling.allowed import AllowedIds
from multimodal.filling.drawing import draw
from multimodal.filling.schedule import SCHEDULES, Schedule, still_hidden
from multimodal.masking.noise import uniform

Predict = Callable[[Tensor, Tensor], Sequence[Tensor]]
"""From ids ``(n, k)`` and what is hidden of them ``(n, k)`` bool to the logits of each field, ``(m, vocab_size)``."""
Unit = Literal["token", "field"]
Order = Literal["confidence", "random"]
FIRST_STREAM = 1000
"""Of the noise that ids are drawn with, one for each round; above all of maskings and corruptions."""
ORDER_STREAM = 500


class IterativeDecoding:
    """Predict all hidden ids in each round, keep the surest, and predict the others again with these in sight.

    Mask-Predict (https://arxiv.org/abs/1904.09324) and MaskGIT (https://arxiv.org/abs/2202.04200). After the rounds, ``refine_steps`` more
    hide a random share of what was filled in and draw it again: blocked Gibbs sampling (Coconet, https://arxiv.org/abs/1903.07227), whose
    share falls from round to round (Yao et al., https://arxiv.org/abs/1402.0030).

    An item's ids are a function of its own tokens and seed.

    Args:
        steps: rounds; 1 fills all at once. At least one unit of an item is kept in each, so that a few need fewer rounds.
        schedule: how many are kept in each round, "cosine" or "linear"; see ``still_hidden``.
        temperature: of the ids that are drawn; 0: the likeliest.
        top_k: only so many of the likeliest ids are drawn from; None: all.
        top_p: only the likeliest ids that together have this probability are drawn from, in (0, 1]; None: all.
        unit: what is kept or stays hidden: a "token", whose confidence is the mean of the logarithms of the probabilities of its hidden
            fields; or each "field" by itself, which takes a model that saw tokens with single fields hidden.
        order: whether the surest are kept, by "confidence", or any, by chance ("random"), which is nearer to the model's own distribution.
        revise: whether what was kept is hidden again where it is among the least sure (Mask-Predict). Without it stays (MaskGIT).
        refine_steps: rounds of Gibbs sampling after the others.
        refine_share: share of the units that is drawn again in the first of these, and in the last; each at least one unit.

    Raises:
        ValueError: a setting outside its range.
    """

    def __init__(
        self,
        steps: int = 8,
        schedule: Schedule = "cosine",
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        unit: Unit = "token",
        order: Order = "confidence",
        revise: bool = False,
        refine_steps: int = 0,
        refine_share: tuple[float, float] = (0.5, 0.1),
    ) -> None:
        if steps < 1 or refine_steps < 0:
            raise ValueError(f"steps must be at least 1 and refine_steps at least 0, got {steps} and {refine_steps}.")
        if temperature < 0 or (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
            raise ValueError(
                f"temperature must be at least 0, top_k at least 1 and top_p in (0, 1], got {temperature}, {top_k} and {top_p}."
            )
        for name, value, known in (("schedule", schedule, SCHEDULES), ("unit", unit, get_args(Unit)), ("order", order, get_args(Order))):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
        if not all(0 < share <= 1 for share in refine_share):
            raise ValueError(f"refine_share must be two shares in (0, 1], got {tuple(refine_share)}.")
        if revise and order == "random":
            raise ValueError("revise hides the least sure again, which order 'random' does not look at: leave one of them out.")
        self.steps, self.schedule, self.unit, self.order, self.revise = steps, schedule, unit, order, revise
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.refine_steps, self.refine_share = refine_steps, refine_share

    @property
    def rounds(self) -> int:
        """How often the model is asked, at most."""
        return self.steps + self.refine_steps

    def __call__(
        self,
        predict: Predict,
        ids: Int[Tensor, "n k"],
        asked: Bool[Tensor, "n k"],
        lengths: Int[Tensor, " i"],
        seed: Int[Tensor, " i"],
        allowed: AllowedIds,
    ) -> Int[Tensor, "n k"]:
        """Return the ids, those that were asked for filled in and all others as they are.

        Args:
            predict: the model.
            ids: of all items end to end; of hidden ones only the kinds count.
            asked: True at ids that are hidden.
            lengths: tokens of each item.
            seed: of each item.
            allowed: which ids may be filled in.
        """
        filler = _Filler(self, predict, ids, asked, lengths, seed, allowed)
        hidden = asked
        for step in range(1, self.steps + 1):
            if not hidden.any():
                break
            filler.fill(hidden, step)
            hidden = filler.least_sure(hidden, step)
        for step in range(1, self.refine_steps + 1):
            if asked.any():
                filler.fill(filler.some(step), self.steps + step)
        return filler.ids


class _Filler:
    """The ids as they are filled in."""

    def __init__(
        self, how: IterativeDecoding, predict: Predict, ids: Tensor, asked: Tensor, lengths: Tensor, seed: Tensor, allowed: AllowedIds
    ) -> None:
        self.how, self.predict, self.allowed = how, predict, allowed
        self.truth, self.ids, self.asked = ids, ids.clone(), asked
        self.confidence = torch.zeros_like(ids, dtype=torch.float32)
        item = torch.repeat_interleave(lengths, output_size=len(ids))
        starts = lengths.cumsum(0) - lengths
        self.seed = seed[item]
        fields = ids.shape[1]
        self.counter = (torch.arange(len(ids), device=ids.device) - starts[item])[:, None] * fields + torch.arange(
            fields, device=ids.device
        )
        self.num_items = len(lengths)
        self.item = item if how.unit == "token" else item.repeat_interleave(fields)
        self.units = self._units(asked)
        self.total = torch.zeros_like(lengths).index_add_(0, self.item, self.units.long())

    def _units(self, hidden: Bool[Tensor, "n k"]) -> Bool[Tensor, " u"]:
        """Return True at units with a hidden id."""
        return hidden.any(1) if self.how.unit == "token" else hidden.flatten()

    def _ids_of(self, units: Bool[Tensor, " u"]) -> Bool[Tensor, "n k"]:
        """Return True at the ids of units that were asked for."""
        return self.asked & (units[:, None] if self.how.unit == "token" else units.view_as(self.asked))

    def fill(self, hidden: Bool[Tensor, "n k"], round_: int) -> None:
        """Ask the model for what is hidden, and take what is drawn."""
        rows = hidden.any(1).nonzero()[:, 0]
        logits = self.predict(self.ids, hidden)
        for field, own in enumerate(logits):
            noise = uniform(self.seed[rows], self.counter[rows, field], FIRST_STREAM + round_)
            allowed = self.allowed(field, self.truth[rows, field])
            drawn = draw(own, allowed, noise, self.how.temperature, self.how.top_k, self.how.top_p)
            there = hidden[rows, field]
            self.ids[rows[there], field] = drawn.ids[there]
            self.confidence[rows[there], field] = drawn.confidence[there]

    def least_sure(self, hidden: Bool[Tensor, "n k"], step: int) -> Bool[Tensor, "n k"]:
        """Return what stays hidden after a round."""
        units = self._units(hidden)
        before = torch.zeros_like(self.total).index_add_(0, self.item, units.long())
        left = torch.minimum(still_hidden(self.total, step, self.how.steps, self.how.schedule), (before - 1).clamp(min=0))
        candidates = self.units if self.how.revise else units
        score = self._noise(ORDER_STREAM + step) if self.how.order == "random" else self._sureness()
        return self._ids_of(self._first(candidates, score, left))

    def some(self, step: int) -> Bool[Tensor, "n k"]:
        """Return what is drawn again in a round of Gibbs sampling."""
        first, last = self.how.refine_share
        share = first + (last - first) * (step - 1) / max(self.how.refine_steps - 1, 1)
        count = (self.total * share).round().long().clamp(min=1)
        return self._ids_of(self._first(self.units, self._noise(ORDER_STREAM + self.how.steps + step), count))

    def _sureness(self) -> Float[Tensor, " u"]:
        """Return the confidence of each unit."""
        if self.how.unit == "field":
            return self.confidence.flatten()
        return (self.confidence * self.asked).sum(1) / self.asked.sum(1).clamp(min=1)

    def _noise(self, stream: int) -> Float[Tensor, " u"]:
        counter = self.counter[:, 0] if self.how.unit == "token" else self.counter.flatten()
        seed = self.seed if self.how.unit == "token" else self.seed.repeat_interleave(self.asked.shape[1])
        return uniform(seed, counter, stream)

    def _first(self, candidates: Bool[Tensor, " u"], score: Float[Tensor, " u"], count: Int[Tensor, " i"]) -> Bool[Tensor, " u"]:
        """Return the ``count`` candidates of each item with the lowest scores."""
        order = score.masked_fill(~candidates, torch.inf).argsort(stable=True)
        order = order[self.item[order].argsort(stable=True)]
        sizes = torch.bincount(self.item, minlength=self.num_items)
        place = torch.arange(len(order), device=order.device) - (sizes.cumsum(0) - sizes)[self.item]  # in sorted order too
        chosen = torch.empty_like(candidates)
        chosen[order] = place < count[self.item]
        return chosen & candidates
