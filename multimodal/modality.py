"""What a modality is: one object that names its parts.

Letters in shapes: n tokens of all items, items, k fields, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from multimodal.batch import Items
from multimodal.masking import Hiding, MaskReplaceKeep
from multimodal.nn import PredictionHead, RegressionHead, TiedHead, TokenDecoder, TokenHead
from multimodal.protocols import Corruption, Embed, Masking, Preparation, Renderer, Target, Tokenizer, Tokens, Transform

CLONE_STEP = 0x2545F4914F6CDD1D
"""Between the seeds of the clones of one item; odd, so that they keep apart."""


@dataclass(frozen=True)
class MaskedView:
    """The items of one modality, cut into tokens and partly hidden.

    Args:
        tokens: all tokens, as they are shown.
        targets: ``(n, ...)``, what is to be predicted of each: ids or vectors.
        masked: ``(n,)`` bool, True where that is to be predicted.
        shown_as_mask: ``(n,)`` bool, True where the encoder sees the mask; ``(n, k)``, in which fields.
        visible: ``(n,)`` bool, True at the tokens that the encoder gets; None: it gets all.
        sequence: ``(n,)`` int64, the sequence of each token: the number of its sample, or that of a group of mixed items. Of c clones of a
            sample: c times the number of the sample, and that of the clone.
        asked: ``(n, size)`` or ``(n, k)`` bool, True at the entries of vectors, or the fields of ids, that are to be predicted; None: all
            of masked tokens.
    """

    tokens: Tokens
    targets: Tensor
    masked: Tensor
    shown_as_mask: Tensor
    visible: Tensor | None
    sequence: Tensor
    asked: Tensor | None = None

    @property
    def truth(self) -> Tensor:
        """``(m, ...)``, what is to be predicted of the m masked tokens; what is not asked for is NaN in vectors, and -1 in ids."""
        truth = self.targets[self.masked]
        if self.asked is None:
            return truth
        return truth.masked_fill(~self.asked[self.masked], torch.nan if truth.is_floating_point() else -1)


class Seen(NamedTuple):
    """What the encoder gets of the items of one modality, some of it maybe hidden.

    Args:
        vectors: ``(m, d)``, the embedded tokens that it gets.
        tokens: all n of them, as they are shown.
        kept: ``(n,)`` bool, True at the tokens that it gets; None: it gets all.
        hidden: ``(n,)`` bool, True where it does not see the token, but the mask, another token or nothing; None: it sees all.
    """

    vectors: Tensor
    tokens: Tokens
    kept: Tensor | None = None
    hidden: Tensor | None = None

    @property
    def item(self) -> Tensor:
        """``(m,)`` int64, the item of each token that the encoder gets."""
        return self.tokens.item if self.kept is None else self.tokens.item[self.kept]

    @property
    def coordinates(self) -> Tensor:
        """``(m, axes)``, where each of them lies."""
        return self.tokens.coordinates if self.kept is None else self.tokens.coordinates[self.kept]


class Input(nn.Module):
    """How one kind of data is read and enters the encoder.

    Args:
        dim: width of the encoder (filled in by the model).
        transform: bytes of a file -> values.
        embed: builds the embedding from the encoder's width; or an embedding that is there already (``multimodal.pretrained.load_embed``).
        expert: the weights of a multiway encoder that its tokens go through, from 0; 0 for other encoders.
        preparation: what is done to all items at once, where the batch lies, before anything else sees them.
        hiding: hides a part of the tokens while classes are learned (``FineTuning``, ``TokenLabelling``); None: none are.

    Raises:
        ValueError: ``expert`` is negative.
    """

    def __init__(
        self,
        dim: int,
        transform: Transform,
        embed: Callable[[int], Embed] | Embed,
        expert: int = 0,
        preparation: Sequence[Preparation] = (),
        hiding: Hiding | None = None,
    ) -> None:
        super().__init__()
        if expert < 0:
            raise ValueError(f"expert must be at least 0, got {expert}.")
        self.transform, self.expert = transform, expert
        self.embed = embed if isinstance(embed, Embed) else embed(dim)
        self.preparation, self.hiding = nn.ModuleList(preparation), hiding
        for source in self.sources:
            self.embed.check_source(source)

    @property
    def sources(self) -> list[Transform | Preparation]:
        """What makes the values, in order; from the last that normalises them on, where one does."""
        made: list[Transform | Preparation] = [self.transform, *(cast(Preparation, step) for step in self.preparation)]
        return made[max((i for i, source in enumerate(made) if getattr(source, "normalizes", False)), default=0) :]

    @torch.no_grad()
    def prepared(self, items: Items, train: bool) -> Items:
        """Return items as they are to be cut into tokens.

        Args:
            items: as the data module made them.
            train: whether they are augmented.

        Raises:
            ValueError: they bring ids, which a preparation makes those of other items.
        """
        for step in self.preparation:
            if items.ids is not None and not cast(Preparation, step).keeps_ids:
                raise ValueError(
                    f"{type(step).__name__} changes what the stored ids were made of: leave it out, or read shards without ids."
                )
            items = step(items, train)
        return items

    def plain_tokens(self, items: Items) -> tuple[Tensor, Tensor, Tensor]:
        """Return, with nothing hidden, the embedded tokens ``(n, d)``, the sample of each ``(n,)`` and its coordinates ``(n, axes)``."""
        tokens = self.embed.tokens(items.values, items.lengths)
        return self.embed(tokens), items.sample[tokens.item], tokens.coordinates

    def hiding_in(self, stage: str) -> Hiding | None:
        """Return what hides tokens in a stage, "train", "val", "test" or "predict"; None: nothing does."""
        hides = stage == "train" or (stage in ("val", "test") and self.hiding is not None and self.hiding.in_evaluation)
        return self.hiding if hides else None

    def seen(self, items: Items, hiding: Hiding | None = None) -> Seen:
        """Return what the encoder gets of items, a part of which may be hidden, as a function of the items' seeds.

        Raises:
            ValueError: the embedding or the hiding does not suit the items.
        """
        tokens = self.embed.tokens(items.values, items.lengths)
        if hiding is None:
            return Seen(self.embed(tokens), tokens)
        tokenizer = getattr(self.transform, "tokenizer", None)
        if isinstance(tokenizer, Tokenizer) and len(items.values) == len(tokens.inputs):
            tokens = tokenizer.annotated(tokens, items.values)
        shown, as_mask, kept = hiding(self.embed, tokens, items.seed)
        hidden = as_mask if as_mask.ndim == 1 else as_mask.any(1)
        if shown.inputs is not tokens.inputs:
            hidden = hidden | shown.differing(tokens)
        if kept is None:
            return Seen(self.embed(shown, as_mask), shown, None, hidden)
        return Seen(self.embed(shown.select(kept), as_mask[kept]), shown, kept, hidden | ~kept)


class Modality(Input):
    """How one kind of data is read, enters the encoder, is hidden and is predicted.

    Args:
        dim: width of the encoder (filled in by the model).
        transform: bytes of a file -> values.
        embed: builds the embedding from the encoder's width, or is one.
        masking: which tokens to hide.
        corruption: what is shown at hidden tokens; None: always the mask.
        tokenizer: gives the target ids, and is kept frozen; None where the transform's own tokenizer makes the values ids already.
        target: what is predicted instead of a tokenizer's ids (``multimodal.objectives``: values, features of a teacher, places).
        decoder: builds what makes hidden tokens of visible ones from the encoder's width; needed where hidden tokens are dropped.
        head: builds the prediction head from the width and the sizes of the target, or is one; None: ``PredictionHead`` for ids,
            ``RegressionHead`` for vectors.
        weight: weight of one predicted token of this modality in the loss.
        renderer: draws pictures for logs and reports; None: no pictures.
        expert: the weights of a multiway encoder that its tokens go through, from 0; 0 for other encoders.
        preparation: what is done to all items at once, where the batch lies, before anything else sees them.
        clones: in so many ways each item is hidden in a step, each a sequence of its own; what is to be predicted is made once. data2vec
            2.0: 16 for images, EAT: 16. Batches that are measured in tokens count an item once.
        eval_masking: which tokens to hide in evaluation; None: as in training. MosaicBERT and ModernBERT hide 30% in training, and 15% in
            evaluation, where others' numbers can be compared.
        tied: whether the last layer of the head has the embedding's table of ids as its weight (BERT, ModernBERT).

    Raises:
        ValueError: a weight that is not positive, a tokenizer beside a target, vocabularies that do not agree, fewer than one clone,
            clones of items that are mixed, an ``eval_masking`` that mixes other numbers of items, or ``tied`` parts of other shapes.
    """

    def __init__(
        self,
        dim: int,
        transform: Transform,
        embed: Callable[[int], Embed] | Embed,
        masking: Masking,
        corruption: Corruption | None = None,
        tokenizer: Tokenizer | None = None,
        target: Target | None = None,
        decoder: Callable[[int], TokenDecoder] | None = None,
        head: Callable[[int, Sequence[int]], TokenHead] | TokenHead | None = None,
        weight: float = 1.0,
        renderer: Renderer | None = None,
        expert: int = 0,
        preparation: Sequence[Preparation] = (),
        clones: int = 1,
        eval_masking: Masking | None = None,
        tied: bool = False,
    ) -> None:
        super().__init__(dim, transform, embed, expert, preparation)
        if clones < 1 or (clones > 1 and masking.num_mixed > 1):
            raise ValueError(f"clones must be at least 1, and 1 for a masking that mixes items, got {clones}.")
        if eval_masking is not None and eval_masking.num_mixed != masking.num_mixed:
            raise ValueError(f"eval_masking mixes {eval_masking.num_mixed} items, masking {masking.num_mixed}: both must mix as many.")
        if weight <= 0:
            raise ValueError(f"weight must be positive, got {weight}; leave a modality out to not train on it.")
        if tokenizer is not None and target is not None:
            raise ValueError("a modality has a tokenizer, whose ids are predicted, or another target, not both.")
        self.masking, self.eval_masking = masking, eval_masking
        self.weight, self.renderer, self.clones = weight, renderer, clones
        self.corruption = corruption or MaskReplaceKeep(mask=1.0, replace=0.0)
        self.values_are_ids = tokenizer is None and target is None
        self.tokenizer = (tokenizer or _tokenizer_of(transform)).requires_grad_(False).eval() if target is None else None
        self.target = target
        for source in self.sources if self.tokenizer is not None else ():
            self.tokenizer.check_source(source)
        sizes = target.sizes(self.embed) if target is not None else self._vocab_sizes()
        self.decoder = decoder(dim) if decoder else None
        width = dim if self.decoder is None else self.decoder.width
        make = head or (PredictionHead if self.field_names else RegressionHead)
        self.head = make if isinstance(make, TokenHead) else make(width, sizes)
        if tied:
            _tie(self.head, self.embed)

    def _vocab_sizes(self) -> tuple[int, ...]:
        assert self.tokenizer is not None
        sizes = tuple(getattr(self.embed, "vocab_sizes", self.tokenizer.vocab_sizes))
        if self.values_are_ids and sizes != self.tokenizer.vocab_sizes:
            raise ValueError(f"the embedding has vocab_sizes {sizes}: set them to its tokenizer's, {self.tokenizer.vocab_sizes}.")
        if self.values_are_ids and hasattr(self.embed, "mask_ids") and hasattr(self.tokenizer, "mask_ids"):
            shown, wanted = tuple(self.embed.mask_ids.tolist()), self.tokenizer.mask_ids
            if shown != wanted:
                raise ValueError(f"the embedding shows the ids {shown} at hidden tokens: set mask_ids to its tokenizer's, {wanted}.")
        return self.tokenizer.vocab_sizes

    @property
    def predicted(self) -> Tokenizer | Target:
        """What makes of values what is to be predicted."""
        found = self.target if self.tokenizer is None else self.tokenizer
        assert found is not None
        return found

    @property
    def field_names(self) -> tuple[str, ...]:
        """A name for each field of the ids that are predicted; nothing where vectors are."""
        return self.predicted.field_names

    def train(self, mode: bool = True) -> Modality:
        """Set the mode of all parts but the tokenizer, which stays frozen."""
        super().train(mode)
        if self.tokenizer is not None:
            self.tokenizer.eval()
        return self

    @torch.no_grad()
    def ids(self, items: Items) -> Tensor:
        """Return the true ids of all tokens, ``(n,)`` or ``(n, k)``: those that the items bring, else the tokenizer's."""
        assert self.tokenizer is not None
        if items.ids is not None:
            return items.ids
        return items.values if self.values_are_ids else self.tokenizer.encode(*items.for_tokenizer)

    @torch.no_grad()
    def targets(self, items: Items, tokens: Tokens) -> Tensor:
        """Return what is to be predicted of all tokens: ids, or vectors ``(n, size)``.

        Raises:
            ValueError: it is not there for as many tokens as the embedding gives.
        """
        found = self.ids(items) if self.tokenizer is not None else self.target(items, tokens)
        if len(found) != len(tokens.inputs):
            source = type(self.tokenizer or self.target).__name__ + ("" if items.ids is None else " (as stored)")
            what = "targets" if self.tokenizer is None else "ids"
            raise ValueError(
                f"{source} gives {len(found)} {what} where {type(self.embed).__name__} gives {len(tokens.inputs)} tokens for {len(items)} "
                "items: match the tokenizer's or teacher's view and stride with the patch size."
            )
        return found

    def masked_view(self, items: Items, masked: Tensor | None = None, targets: Tensor | None = None) -> MaskedView:
        """Cut items into tokens and hide some, as a function of the items' seeds.

        Args:
            items: as they are to be cut.
            masked: ``(n,)`` or ``(n, k)`` bool, what to hide; None: what the masking says.
            targets: what is to be predicted of all tokens, where it is there already; None: it is made.

        Raises:
            ValueError: as ``targets``; or hidden tokens are dropped, and there is no decoder; or entries are asked for that a target lacks;
                or single fields are hidden of what cannot show the others.
        """
        tokens = self.embed.tokens(items.values, items.lengths)
        targets = self.targets(items, tokens) if targets is None else targets
        if self.tokenizer is not None:
            tokens = self.tokenizer.annotated(tokens, targets)
        seed, sequence = self.seeds(items), self._sequence(items)
        if self.clones > 1:
            tokens, targets = tokens.repeated(self.clones), targets.repeat(self.clones, *[1] * (targets.ndim - 1))
            sequence = (sequence * self.clones + torch.arange(self.clones, device=seed.device)[:, None]).flatten()
        masking = self.masking if self.training or self.eval_masking is None else self.eval_masking
        masked = masking(tokens, seed) if masked is None else masked
        if masked.ndim > 1:
            self._check_fields(tokens, masked, masking)
        shown, as_mask, visible = self.corruption(self.embed, tokens, masked, seed)
        if visible is not None and self.decoder is None:
            raise ValueError(f"{type(self.corruption).__name__} keeps hidden tokens from the encoder: set a decoder, which predicts them.")
        asked = masked if masked.ndim > 1 else self._asked(tokens, targets, masked, seed)
        masked = masked if visible is None else masked & ~visible
        masked = masked if asked is None else asked.any(1)
        return MaskedView(shown, targets, masked, as_mask, visible, sequence[tokens.item], asked)

    def seeds(self, items: Items) -> Tensor:
        """Return the seed of each item in a masked view; with clones, all items of each clone after those of the one before."""
        clone = torch.arange(self.clones, device=items.seed.device)[:, None]
        return (items.seed + clone * CLONE_STEP).flatten()

    def _asked(self, tokens: Tokens, targets: Tensor, masked: Tensor, seed: Tensor) -> Tensor | None:
        """Return which entries of the targets are to be predicted; None: all of masked tokens."""
        asked = self.corruption.asked(tokens, masked, seed)
        if asked is not None and (asked.shape != targets.shape or not targets.is_floating_point()):
            raise ValueError(
                f"{type(self.corruption).__name__} asks for some of the {asked.shape[1]} values of a token, but what is predicted is "
                f"{targets.dtype} of shape {tuple(targets.shape[1:])}: set the target to multimodal.objectives.TokenValues."
            )
        return asked

    def _check_fields(self, tokens: Tokens, masked: Tensor, masking: Masking) -> None:
        wrong = {
            "its embedding does not read the ids that are predicted": not self.values_are_ids or tokens.inputs.shape != masked.shape,
            f"{type(self.corruption).__name__} hides whole tokens: take MaskReplaceKeep": not self.corruption.hides_fields,
            "its head predicts no ids field by field": not isinstance(self.head, PredictionHead),
        }
        if reasons := [reason for reason, found in wrong.items() if found]:
            raise ValueError(f"{type(masking).__name__} cannot hide single fields of this modality: {reasons[0]}.")

    def _sequence(self, items: Items) -> Tensor:
        """Return the sequence of each item."""
        mixed = self.masking.num_mixed
        if mixed == 1:
            return items.sample
        if len(items.sample.unique()) < len(items):
            raise ValueError(f"{type(self.masking).__name__} mixes samples of one item each; these have several.")
        return torch.arange(len(items), device=items.sample.device) // mixed


def _tie(head: TokenHead, embed: Embed) -> None:
    """Make the embedding's table the weight of the head's last layer."""
    if isinstance(head, TiedHead):
        head.tie(embed)
        return
    table, last = getattr(embed, "table", None), getattr(head, "proj", None)
    if not isinstance(table, nn.Parameter) or not isinstance(last, nn.Linear) or last.weight.shape != table.shape:
        found = [None if x is None else tuple(x.shape) for x in (table, getattr(last, "weight", None))]
        raise ValueError(
            f"tied: the table of a {type(embed).__name__} is {found[0]}, the last layer of a {type(head).__name__} {found[1]}: set tied to "
            "false, or, for a table that is narrower than the encoder, the head's width."
        )
    last.weight = table


def _tokenizer_of(transform: Transform) -> Tokenizer:
    tokenizer = getattr(transform, "tokenizer", None)
    if not isinstance(tokenizer, Tokenizer):
        raise ValueError(f"{type(transform).__name__} has no tokenizer of its own: give the modality a tokenizer, or another target.")
    return tokenizer
