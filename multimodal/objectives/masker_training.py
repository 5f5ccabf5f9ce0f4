"""Train what decides which tokens are hidden.

Letters in shapes: n tokens, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor, nn

from multimodal.batch import Batch
from multimodal.masking import AdversarialMasking, MaskBook
from multimodal.masking.ranks import count_within
from multimodal.modality import MaskedView, Modality
from multimodal.nn import Encoder
from multimodal.objectives.objective import EncodedBatch, EncodedView, EncoderInput, Objective, Term
from multimodal.protocols import Tokens


@dataclass(frozen=True, kw_only=True)
class ScoredView(MaskedView):
    """The items of one modality, of which the tokens with the highest scores are hidden.

    Args:
        scores: ``(n,)`` float32, of the masker.
        chosen: ``(n,)`` bool, True where it made the masking hide a token.
        corrupted: ``(n,)`` bool, True where the encoder is shown something else than the token, or nothing.
    """

    scores: Tensor
    chosen: Tensor
    corrupted: Tensor


class MaskerTraining(Objective):
    """Let maskings that learn (``AdversarialMasking``) choose what is hidden in training, and train their maskers.

    ``MaskedPretraining`` adds it by itself where a modality has such a masking. Before a batch is encoded, it encodes it as it is, scores
    its tokens, and hides them as the masking says. The losses of the prediction, which are computed once, then say what the scores should
    have been. The error of an item counts as much as its hidden tokens; so with ``weight`` 1 the loss is the mean loss of the prediction
    and the mean squared error, half of each, however a batch is split.

    The masker, and the book of places that are not to be hidden, exist for training only. All processes have the same book: what one
    writes, all get at the end of the step. Scores: ``<modality>_masker``, its accuracy the share of targets on the right side of 0.5.

    Args:
        encoder: what is trained (filled in by the model).
        modalities: name -> modality (filled in by the model); those whose masking does not learn are left alone.
        weight: of this objective against others; beside it each masking has its own.

    Raises:
        ValueError: a weight that is not positive, no masking that learns, or one of a modality with ``clones``.
    """

    suffix = "_masker"
    needs_whole_model = True  # ranks with the modality encode once more than others

    def __init__(self, encoder: Encoder, modalities: Mapping[str, Modality], weight: float = 1.0) -> None:
        super().__init__(encoder, modalities, weight)
        learned = {name: modality.masking for name, modality in modalities.items() if modality.masking.learns}
        if not learned:
            raise ValueError("MaskerTraining needs a modality whose masking learns, such as AdversarialMasking.")
        if cloned := [name for name in learned if modalities[name].clones > 1]:
            raise ValueError(f"{type(learned[cloned[0]]).__name__} hides an item in one way: set clones of modality {cloned[0]!r} to 1.")
        self.maskings = {name: cast(AdversarialMasking, masking) for name, masking in learned.items()}
        self.maskers = nn.ModuleDict({name: masking.masker(encoder.dim) for name, masking in self.maskings.items()})
        self.books = {name: MaskBook() for name in self.maskings}
        self._modalities = dict(modalities)  # no parts of its own

    def shown(self, batch: Batch, views: Mapping[str, MaskedView], encoder: Encoder) -> Mapping[str, MaskedView]:
        """Return the views, in training with the tokens hidden that the maskers choose."""
        names = [name for name in views if name in self.maskings]
        if not self.training or not names:
            return views
        clean = {name: self._modalities[name].embed.tokens(items.values, items.lengths) for name, items in batch.items.items()}
        scores = self._scores(batch, clean, encoder)
        return {
            name: self._hidden(name, batch, view, clean[name], scores[name]) if name in scores else view for name, view in views.items()
        }

    def _scores(self, batch: Batch, clean: Mapping[str, Tokens], encoder: Encoder) -> dict[str, Tensor]:
        """Return modality name -> ``(n,)``, the scores of its tokens, from all tokens of the batch as they are."""
        reached = any(self.maskings[name].reach_encoder for name in clean if name in self.maskings)
        with nullcontext() if reached else torch.no_grad():
            parts = [
                (self._modalities[name].embed(tokens), batch.items[name].sample[tokens.item], tokens.coordinates)
                for name, tokens in clean.items()
            ]
            experts = [self._modalities[name].expert for name in clean] if encoder.num_experts > 1 else None
            wanted = [torch.full_like(part[1], name in self.maskings, dtype=torch.bool) for name, part in zip(clean, parts, strict=True)]
            output = encoder(*EncoderInput.join(parts, experts), wanted=torch.cat(wanted)).tokens
        names = [name for name in clean if name in self.maskings]
        found = zip(names, output.split([len(clean[name].inputs) for name in names]), strict=True)
        return {name: self.maskers[name](own if self.maskings[name].reach_encoder else own.detach()) for name, own in found}

    def _hidden(self, name: str, batch: Batch, view: MaskedView, clean: Tokens, scores: Tensor) -> ScoredView:
        """Return the view of a modality with the tokens hidden that are chosen by their scores; note in the book what is closed."""
        masking, items, book, told = self.maskings[name], batch.items[name], self.books[name], scores.detach()
        keys, lengths = [batch.keys[i] for i in items.sample.tolist()], clean.lengths.tolist()
        closed = book.closed(keys, lengths).to(scores.device)
        chosen = masking.choose(view.tokens, told, closed, items.seed)
        if masking.changes_book(self.epoch):
            book.write(keys, masking.closed_next(view.tokens, told, closed, items.seed).cpu().split(lengths))
        made = self._modalities[name].masked_view(items, masking.hidden(view.tokens, chosen), view.targets)
        own: dict[str, Any] = {field.name: getattr(made, field.name) for field in fields(made)}
        return ScoredView(**own, scores=scores, chosen=chosen, corrupted=_corrupted(made, clean))

    def forward(self, encoded: EncodedBatch) -> dict[str, Term]:
        """Return, in training, the term of each modality whose masking learns."""
        return {name: self._term(name, view) for name, view in encoded.views.items() if isinstance(view.view, ScoredView)}

    def _term(self, name: str, encoded: EncodedView) -> Term:
        view, masking = cast(ScoredView, encoded.view), self.maskings[name]
        losses = torch.zeros_like(view.scores)
        losses[view.masked] = encoded.prediction.loss.detach().to(losses.dtype)
        targets = masking.targets(view.tokens, losses, view.chosen & view.masked, view.corrupted)
        asked = ~targets.isnan()
        per_item, hidden = (count_within(view.tokens, which) for which in (asked, view.chosen))
        share = (hidden / per_item.clamp(min=1))[view.tokens.item[asked]]
        scores, truth = view.scores[asked], targets[asked]
        right = ((scores > 0.5) == (truth > 0.5)).sum()[None]
        count = hidden[per_item > 0].sum()
        weight = self.weight * masking.weight * encoded.modality.weight
        return Term(((scores - truth).square() * share).sum(), count, weight, right, scores.detach(), asked.sum()[None])

    def fields(self, modalities: Mapping[str, Modality]) -> dict[str, tuple[str, ...]]:
        """Return one field for each modality whose masking learns: whether a token was hard to predict."""
        return {name: ("hard",) for name in self.maskings}

    def after_step(self, encoder: Encoder, modalities: Mapping[str, Modality], step: int) -> None:
        """Let all processes know what each wrote into its book."""
        changed = [name for name, masking in self.maskings.items() if masking.changes_book(self.epoch)]
        if not changed:
            return
        changes = {name: self.books[name].changes() for name in changed}
        if torch.distributed.is_initialized():
            gathered: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, changes)
            for name in changed:
                for other in gathered:
                    self.books[name].merge(other[name])

    def memory(self) -> dict[str, Tensor]:
        """Return the books."""
        return {f"{name}/{part}": tensor for name, book in self.books.items() for part, tensor in book.state().items()}

    def remember(self, memory: Mapping[str, Tensor]) -> None:
        """Take the books over from a checkpoint; one that has none leaves them open."""
        for name, book in self.books.items():
            if own := {key.rpartition("/")[2]: tensor for key, tensor in memory.items() if key.rpartition("/")[0] == name}:
                book.load(own)


def _corrupted(view: MaskedView, clean: Tokens) -> Tensor:
    """Return ``(n,)`` bool, True where a token is not shown as it is."""
    changed = view.tokens.differing(clean) | (view.shown_as_mask if view.shown_as_mask.ndim == 1 else view.shown_as_mask.any(1))
    changed = changed if view.tokens.unplaced is None else changed | view.tokens.unplaced
    return changed if view.visible is None else changed | ~view.visible
