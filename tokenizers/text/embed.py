"""How ids of a text enter the encoder.

Letters in shapes: n tokens of all items end to end, d width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multimodal.batch import Item
from multimodal.nn import initialize_linear
from multimodal.protocols import Embed, Tokens


class TextEmbed(Embed):
    """A table of words, with what is added to it and the norm after it (BERT, https://arxiv.org/abs/1810.04805).

    The mask is an id of the vocabulary.

    Args:
        dim: width of the encoder.
        vocab_size: number of ids.
        mask_id: the id that is shown at hidden tokens; None: there is none, and hidden tokens cannot be shown as the mask.
        position: builds positions to be added from the width; called with ``(n, 1)`` indices. BERT: ``multimodal.nn.LearnedPosition`` with
            ``size: [512]``. None: positions enter in the encoder (ModernBERT).
        num_types: rows of a table of token types, whose first is added to every token; 0: there is none. BERT: 2.
        norm: builds a norm of the sum from the width; None: no norm.

    Raises:
        ValueError: there are no ids, or ``mask_id`` is none of them; or, when called, hidden tokens are to be shown as a mask that is not
            there.
    """

    def __init__(
        self,
        dim: int,
        vocab_size: int = 259,
        mask_id: int | None = None,
        position: Callable[[int], nn.Module] | None = None,
        num_types: int = 0,
        norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if vocab_size < 1 or num_types < 0:
            raise ValueError(f"vocab_size must be at least 1 and num_types at least 0, got {vocab_size} and {num_types}.")
        if mask_id is not None and not 0 <= mask_id < vocab_size:
            raise ValueError(f"mask_id must be an id from 0 to {vocab_size - 1}, got {mask_id}.")
        self.vocab_sizes, self.mask_id = (vocab_size,), mask_id
        self.words = nn.Embedding(vocab_size, dim)
        self.types = nn.Embedding(num_types, dim) if num_types else None
        self.apply(initialize_linear)
        self.position = position(dim) if position else None
        self.norm = norm(dim) if norm else nn.Identity()

    def tokens(self, values: Int[Tensor, "*shape"], lengths: Int[Tensor, " items"] | None = None) -> Tokens:
        """Return one token per id; its coordinate is its index in the item.

        Args:
            values: ``(n,)`` ids of all items end to end; without lengths ``(items, l)``, of items of one length.
            lengths: of the items.

        Raises:
            ValueError: the ids have another shape.
        """
        if values.ndim != (2 if lengths is None else 1):
            given = "(items, length) without lengths" if lengths is None else "(n,) with lengths"
            raise ValueError(f"ids of texts are {given}, got {tuple(values.shape)}.")
        return Tokens.of_sequences(values, lengths)

    def forward(self, tokens: Tokens, shown_as_mask: Bool[Tensor, " n"] | None = None) -> Float[Tensor, "n d"]:
        """Embed tokens; where ``shown_as_mask``, the id is ``mask_id``."""
        ids = tokens.inputs
        if shown_as_mask is not None:
            if self.mask_id is None:
                raise ValueError("hidden tokens cannot be shown as the mask: this embedding has no mask_id.")
            ids = ids.masked_fill(shown_as_mask, self.mask_id)
        x = self.words(ids)
        if self.types is not None:
            x = x + self.types.weight[0]
        if self.position is not None:
            x = x + self.position(tokens.coordinates)
        return self.norm(x)

    def example(self) -> Item:
        """Return a text of one token."""
        return Item(torch.zeros(1, dtype=torch.int64), ragged=True)

    def random_inputs(self, tokens: Tokens, noise: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Return random ids, uniform over the whole vocabulary (BERT)."""
        return (noise.double() * self.vocab_sizes[0]).long()
