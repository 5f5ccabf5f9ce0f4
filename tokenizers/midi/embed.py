"""How compound-word tokens enter the encoder.

Letters in shapes: n tokens of all items end to end, k fields, d width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multimodal.masking.noise import uniform
from multimodal.nn import SinCosPosition
from multimodal.protocols import Embed, Tokens

NOISE_VALUES = 2**24  # float32 noise holds 24 bits


class CompoundEmbed(Embed):
    """One embedding per field, scaled and concatenated, then one linear layer (MidiBERT, https://arxiv.org/abs/2107.05223).

    The mask is the MASK id of every field. As published, positions are relative and enter in the encoder, token types are added and a norm
    follows: ``positions: false``, ``num_types: 2`` and a ``norm``. Departures of the defaults: fixed sines and cosines of the index are
    added; and embeddings start with standard deviation ``1 / sqrt(field_dim)``, so that they have unit size after the scaling and do not
    drown the positions (with a norm they start with 1, as MidiBERT's).

    Args:
        dim: width of the encoder.
        vocab_sizes: number of ids of each field.
        mask_ids: the MASK id of each field; None: the last.
        field_dim: width of the embedding of a field. MidiBERT: 256.
        max_length: most tokens of an item.
        positions: whether positions are added; else they enter in the encoder.
        num_types: rows of a table of token types, whose first is added to every token; 0: there is none.
        norm: builds a norm of the sum from the width; None: no norm.
    """

    mask_ids: Tensor
    positions: Tensor | None

    def __init__(
        self,
        dim: int,
        vocab_sizes: Sequence[int] = (4, 18, 88, 66),
        mask_ids: Sequence[int] | None = None,
        field_dim: int = 64,
        max_length: int = 1024,
        positions: bool = True,
        num_types: int = 0,
        norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.vocab_sizes = tuple(vocab_sizes)
        mask_ids = [size - 1 for size in self.vocab_sizes] if mask_ids is None else list(mask_ids)
        if len(mask_ids) != len(self.vocab_sizes) or not all(0 <= i < size for i, size in zip(mask_ids, self.vocab_sizes, strict=True)):
            raise ValueError(f"mask_ids must be one id per field within vocab_sizes {self.vocab_sizes}, got {tuple(mask_ids)}.")
        self.max_length = max_length
        tables = [nn.Embedding(size, field_dim) for size in self.vocab_sizes]
        self.fields = nn.ModuleList(tables)
        self.scale = math.sqrt(field_dim)
        self.proj = nn.Linear(field_dim * len(self.vocab_sizes), dim)
        self.types = nn.Embedding(num_types, dim) if num_types else None
        self.register_buffer("mask_ids", torch.tensor(mask_ids), persistent=False)
        added = SinCosPosition(dim)(torch.arange(max_length)[:, None]) if positions else None
        self.register_buffer("positions", added, persistent=False)
        for table in tables:
            nn.init.normal_(table.weight, std=1.0 if norm else 1 / self.scale)
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)
        if self.types is not None:
            nn.init.trunc_normal_(self.types.weight, std=0.02)
        self.norm = norm(dim) if norm else nn.Identity()

    def tokens(self, values: Int[Tensor, "*shape"], lengths: Int[Tensor, " items"] | None = None) -> Tokens:
        """Return one token per row of ids; its coordinate is its index in the item.

        Args:
            values: ``(n, k)`` ids of all items end to end, or ``(n,)`` of a single field (REMI); without lengths ``(items, l, k)`` or
                ``(items, l)``, of items of one length.
            lengths: of the items.

        Raises:
            ValueError: an item is longer than ``max_length``, the ids have another number of fields, or there are no lengths.
        """
        flat = len(self.vocab_sizes) == 1 and values.ndim == (2 if lengths is None else 1)
        if not flat and values.ndim != (3 if lengths is None else 2):
            given = "(items, length, fields) without lengths" if lengths is None else "(n, fields) with lengths"
            raise ValueError(f"ids of notes are {given}, got {tuple(values.shape)}: a transform must mark its items ragged.")
        if not flat and values.shape[-1] != len(self.vocab_sizes):
            raise ValueError(f"ids have {values.shape[-1]} fields; vocab_sizes {self.vocab_sizes} has {len(self.vocab_sizes)}.")
        longest = values.shape[1] if lengths is None else values.shape[0]
        if longest > self.max_length and (lengths is None or int(lengths.max()) > self.max_length):
            longest = longest if lengths is None else int(lengths.max())
            raise ValueError(f"an item has {longest} tokens; max_length is {self.max_length} (set it, or max_notes of the transform).")
        return Tokens.of_sequences(values, lengths)

    def forward(self, tokens: Tokens, shown_as_mask: Bool[Tensor, "n ..."] | None = None) -> Float[Tensor, "n d"]:
        """Embed tokens; where ``shown_as_mask``, every field has its MASK id, or where it says so of single fields, these."""
        ids = tokens.inputs if tokens.inputs.ndim == 2 else tokens.inputs[:, None]
        if shown_as_mask is not None:
            shown_as_mask = shown_as_mask if shown_as_mask.ndim == 2 else shown_as_mask[:, None]
            ids = torch.where(shown_as_mask, self.mask_ids, ids)
        fields = torch.cat([embedding(column) for embedding, column in zip(self.fields, ids.unbind(1), strict=True)], dim=1)
        x = self.proj(fields * self.scale)
        if self.positions is not None:
            x = x + self.positions[tokens.coordinates[:, 0]]
        return self.norm(x if self.types is None else x + self.types.weight[0])

    def random_inputs(self, tokens: Tokens, noise: Float[Tensor, " n"]) -> Int[Tensor, "n ..."]:
        """Return random ids, each field uniform over its full vocabulary, PAD and MASK included, as published.

        Each field's number is a hash of the token's noise and the field, so any number of fields is served.
        """
        bits = (noise.double() * NOISE_VALUES).long()[:, None].expand(-1, len(self.vocab_sizes))
        field = torch.arange(len(self.vocab_sizes), device=noise.device).expand_as(bits)
        sizes = torch.tensor(self.vocab_sizes, device=noise.device)
        return (uniform(bits, field).double() * sizes).long().view_as(tokens.inputs)
