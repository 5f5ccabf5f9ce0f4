"""What a modality is: one object that names its parts.

Letters in shapes: n tokens of all items, items, k fields, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from multimodal.batch import Items
from multimodal.masking import MaskReplaceKeep
from multimodal.nn.prediction import PredictionHead
from multimodal.protocols import Corruption, Embed, Masking, Renderer, Tokenizer, Tokens, Transform


@dataclass(frozen=True)
class MaskedView:
    """The items of one modality, cut into tokens and partly hidden.

    Args:
        tokens: the tokens as the encoder is shown them.
        ids: ``(n,)`` or ``(n, k)`` int64, the true ids.
        masked: ``(n,)`` bool, True where the ids are to be predicted.
        shown_as_mask: ``(n,)`` bool, True where the encoder sees the mask.
        sample: ``(n,)`` int64, the sample of each token.
    """

    tokens: Tokens
    ids: Tensor
    masked: Tensor
    shown_as_mask: Tensor
    sample: Tensor


class Input(nn.Module):
    """How one kind of data is read and enters the encoder.

    Args:
        dim: width of the encoder (filled in by the model).
        transform: bytes of a file -> values.
        embed: builds the embedding from the encoder's width; or an embedding that is there already (``multimodal.pretrained.load_embed``).
        expert: the weights of a multiway encoder that its tokens go through, from 0; 0 for other encoders.

    Raises:
        ValueError: ``expert`` is negative.
    """

    def __init__(self, dim: int, transform: Transform, embed: Callable[[int], Embed] | Embed, expert: int = 0) -> None:
        super().__init__()
        if expert < 0:
            raise ValueError(f"expert must be at least 0, got {expert}.")
        self.transform, self.expert = transform, expert
        self.embed = embed if isinstance(embed, Embed) else embed(dim)

    def plain_tokens(self, items: Items) -> tuple[Tensor, Tensor, Tensor]:
        """Return, with nothing hidden, the embedded tokens ``(n, d)``, the sample of each ``(n,)`` and its coordinates ``(n, axes)``."""
        tokens = self.embed.tokens(items.values, items.lengths)
        return self.embed(tokens), items.sample[tokens.item], tokens.coordinates


class Modality(Input):
    """How one kind of data is read, enters the encoder, is hidden and is predicted.

    Args:
        dim: width of the encoder (filled in by the model).
        transform: bytes of a file -> values.
        embed: builds the embedding from the encoder's width, or is one.
        masking: which tokens to hide.
        corruption: what is shown at hidden tokens; None: always the mask.
        tokenizer: gives the target ids, and is kept frozen; None where the transform's own tokenizer makes the values ids already.
        head: builds the prediction head from the width and the tokenizer's vocabulary sizes, or is one.
        weight: weight of one predicted token of this modality in the loss.
        renderer: draws pictures for logs and reports; None: no pictures.
        expert: the weights of a multiway encoder that its tokens go through, from 0; 0 for other encoders.

    Raises:
        ValueError: a weight that is not positive, or vocabularies of embedding, tokenizer and head that do not agree.
    """

    def __init__(
        self,
        dim: int,
        transform: Transform,
        embed: Callable[[int], Embed] | Embed,
        masking: Masking,
        corruption: Corruption | None = None,
        tokenizer: Tokenizer | None = None,
        head: Callable[[int, Sequence[int]], PredictionHead] | PredictionHead = PredictionHead,
        weight: float = 1.0,
        renderer: Renderer | None = None,
        expert: int = 0,
    ) -> None:
        super().__init__(dim, transform, embed, expert)
        if weight <= 0:
            raise ValueError(f"weight must be positive, got {weight}; leave a modality out to not train on it.")
        self.masking, self.weight, self.renderer = masking, weight, renderer
        self.corruption = corruption or MaskReplaceKeep(mask=1.0, replace=0.0)
        self.values_are_ids = tokenizer is None
        self.tokenizer = (tokenizer or _tokenizer_of(transform)).requires_grad_(False).eval()
        sizes = getattr(self.embed, "vocab_sizes", self.tokenizer.vocab_sizes)
        if self.values_are_ids and tuple(sizes) != self.tokenizer.vocab_sizes:
            raise ValueError(f"the embedding has vocab_sizes {tuple(sizes)}: set them to its tokenizer's, {self.tokenizer.vocab_sizes}.")
        self.head = head if isinstance(head, PredictionHead) else head(dim, self.tokenizer.vocab_sizes)

    def train(self, mode: bool = True) -> Modality:
        """Set the mode of all parts but the tokenizer, which stays frozen."""
        super().train(mode)
        self.tokenizer.eval()
        return self

    @torch.no_grad()
    def ids(self, items: Items) -> Tensor:
        """Return the true ids of all tokens, ``(n,)`` or ``(n, k)``: those that the items bring, else the tokenizer's."""
        if items.ids is not None:
            return items.ids
        values = items.values if items.tokenizer_values is None else items.tokenizer_values
        return values if self.values_are_ids else self.tokenizer.encode(values)

    def masked_view(self, items: Items) -> MaskedView:
        """Cut items into tokens and hide some, as a function of the items' seeds.

        Raises:
            ValueError: the tokenizer and the embedding do not give the same number of tokens.
        """
        tokens, ids = self.embed.tokens(items.values, items.lengths), self.ids(items)
        if len(ids) != len(tokens.inputs):
            stored = "" if items.ids is None else " (as stored)"
            raise ValueError(
                f"{type(self.tokenizer).__name__}{stored} gives {len(ids)} ids where {type(self.embed).__name__} gives "
                f"{len(tokens.inputs)} tokens for {len(items)} items: match the tokenizer's view and stride with the patch size."
            )
        masked = self.masking(tokens, items.seed)
        shown, shown_as_mask = self.corruption(self.embed, tokens, masked, items.seed)
        return MaskedView(shown, ids, masked, shown_as_mask, items.sample[tokens.item])


def _tokenizer_of(transform: Transform) -> Tokenizer:
    tokenizer = getattr(transform, "tokenizer", None)
    if not isinstance(tokenizer, Tokenizer):
        raise ValueError(f"{type(transform).__name__} has no tokenizer of its own: give the modality a tokenizer.")
    return tokenizer
