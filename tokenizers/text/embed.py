"""How ids of a text enter the encoder.

Letters in shapes: n tokens of all items end to end, d width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multimodal.batch import Item
from multimodal.nn import initialize_linear
from multimodal.protocols import Embed, Preparation, Tokens, Transform
from multimodal.tokenizers.text.ngrams import HashedNgrams


class TextEmbed(Embed):
    """A table of words, with what is added to it and the norm after it (BERT, https://arxiv.org/abs/1810.04805).

    The mask is an id of the vocabulary.

    Args:
        dim: width of the encoder.
        vocab_size: number of ids.
        mask_id: the id that is shown at hidden tokens; None: there is none, and hidden tokens cannot be shown as the mask.
        position: builds positions to be added from the width; called with ``(n, 1)`` indices. BERT: ``multimodal.nn.LearnedPosition`` with
            ``size: [512]``. None: positions enter in the encoder (ModernBERT).
        num_types: rows of a table of token types; 0: there is none, and types of tokens are not looked at. Every token is of the first
            type, but where its values say another (``TextPairTransform``). BERT: 2.
        norm: builds a norm of the sum from the width; None: no norm.
        width: of all this, where a linear layer then makes the encoder's width of it (ALBERT, ELECTRA small: 128); None: the encoder's.
        dropout: share of the numbers after the norm that are dropped in training, in [0, 1). BERT: 0.1.
        ngrams: builds what is added for the spelling before a token from the width, ``multimodal.tokenizers.text.HashedNgrams``; for bytes
            and characters. None: nothing is.

    Raises:
        ValueError: there are no ids, ``mask_id`` is none of them, or a width or share is out of range; or, when called, hidden tokens are
            to be shown as a mask that is not there.
    """

    def __init__(
        self,
        dim: int,
        vocab_size: int = 259,
        mask_id: int | None = None,
        position: Callable[[int], nn.Module] | None = None,
        num_types: int = 0,
        norm: Callable[[int], nn.Module] | None = None,
        width: int | None = None,
        dropout: float = 0.0,
        ngrams: Callable[[int], HashedNgrams] | None = None,
    ) -> None:
        super().__init__()
        if vocab_size < 1 or num_types < 0:
            raise ValueError(f"vocab_size must be at least 1 and num_types at least 0, got {vocab_size} and {num_types}.")
        if mask_id is not None and not 0 <= mask_id < vocab_size:
            raise ValueError(f"mask_id must be an id from 0 to {vocab_size - 1}, got {mask_id}.")
        if (width is not None and width < 1) or not 0 <= dropout < 1:
            raise ValueError(f"width must be at least 1 and dropout in [0, 1), got {width} and {dropout}.")
        self.vocab_sizes, self.mask_id = (vocab_size,), mask_id
        own = width or dim
        self.words = nn.Embedding(vocab_size, own)
        self.types = nn.Embedding(num_types, own) if num_types else None
        self.proj = nn.Identity() if width is None else nn.Linear(width, dim)
        self.apply(initialize_linear)
        self.ngrams = ngrams(own) if ngrams else None
        self.position = position(own) if position else None
        self.norm = norm(own) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)

    @property
    def table(self) -> nn.Parameter:
        """``(vocab_size, width)``, the table of words, which may be the last layer of a head too."""
        return cast(nn.Parameter, self.words.weight)

    def tokens(self, values: Int[Tensor, "*shape"], lengths: Int[Tensor, " items"] | None = None) -> Tokens:
        """Return one token per id; its coordinate is its index in the item.

        Args:
            values: ``(n,)`` ids of all items end to end, or ``(n, 2)``, the id and the type of each; without lengths ``(items, l)`` or
                ``(items, l, 2)``, of items of one length.
            lengths: of the items.

        Raises:
            ValueError: the values have another shape.
        """
        plain = 2 if lengths is None else 1
        if values.ndim != plain and not (values.ndim == plain + 1 and values.shape[-1] == 2):
            given = "(items, length) or (items, length, 2) without lengths" if lengths is None else "(n,) or (n, 2) with lengths"
            raise ValueError(f"ids of texts, with their types or without, are {given}, got {tuple(values.shape)}.")
        return Tokens.of_sequences(values, lengths)

    def forward(self, tokens: Tokens, shown_as_mask: Bool[Tensor, " n"] | None = None) -> Float[Tensor, "n d"]:
        """Embed tokens; where ``shown_as_mask``, the id is ``mask_id``."""
        ids, types = (tokens.inputs, None) if tokens.inputs.ndim == 1 else tokens.inputs.unbind(1)
        if shown_as_mask is not None:
            if self.mask_id is None:
                raise ValueError("hidden tokens cannot be shown as the mask: this embedding has no mask_id.")
            ids = ids.masked_fill(shown_as_mask, self.mask_id)
        x = self.words(ids)
        if self.ngrams is not None:
            x = x + self.ngrams(ids, tokens.position, shown_as_mask)
        if self.types is not None:
            x = x + (self.types.weight[0] if types is None else self.types(types))
        if self.position is not None:
            x = x + self.position(tokens.coordinates)
        return self.proj(self.drop(self.norm(x)))

    def check_source(self, source: Transform | Preparation) -> None:
        """Refuse values with more types than the table has rows; without a table types are not looked at.

        Raises:
            ValueError: there are more.
        """
        types = getattr(source, "num_types", 0)
        if self.types is not None and types > len(self.types.weight):
            raise ValueError(
                f"{type(source).__name__} makes tokens of {types} types, but the embedding has num_types {len(self.types.weight)}."
            )

    def example(self) -> Item:
        """Return a text of one token."""
        return Item(torch.zeros(1, dtype=torch.int64), ragged=True)

    def random_inputs(self, tokens: Tokens, noise: Float[Tensor, " n"]) -> Int[Tensor, "n ..."]:
        """Return random ids, uniform over the whole vocabulary (BERT); types stay."""
        ids = (noise.double() * self.vocab_sizes[0]).long()
        return ids if tokens.inputs.ndim == 1 else torch.stack([ids, tokens.inputs[:, 1]], 1)
