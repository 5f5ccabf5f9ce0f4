"""How compound-word tokens enter the encoder.

Letters in shapes: n tokens of all items end to end, k fields, d width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from multimodal.masking.noise import uniform
from multimodal.nn import SinCosPosition
from multimodal.protocols import Embed, Tokens

NOISE_VALUES = 2**24  # float32 noise holds 24 bits


class CompoundEmbed(Embed):
    """One embedding per field, scaled and concatenated, then one linear layer (MidiBERT, https://arxiv.org/abs/2107.05223).

    The mask is the MASK id of every field. Departures: fixed sines and cosines of the index are added, where MidiBERT has relative
    positions in its encoder; and embeddings start with standard deviation ``1 / sqrt(field_dim)``, so that they have unit size after
    the scaling and do not drown the positions (MidiBERT's start with 1 and meet a norm).

    Args:
        dim: width of the encoder.
        vocab_sizes: number of ids of each field.
        mask_ids: the MASK id of each field; None: the last.
        field_dim: width of the embedding of a field. MidiBERT: 256.
        max_length: most tokens of an item.
    """

    mask_ids: Tensor
    positions: Tensor

    def __init__(
        self,
        dim: int,
        vocab_sizes: Sequence[int] = (4, 18, 88, 66),
        mask_ids: Sequence[int] | None = None,
        field_dim: int = 64,
        max_length: int = 1024,
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
        self.register_buffer("mask_ids", torch.tensor(mask_ids), persistent=False)
        self.register_buffer("positions", SinCosPosition(dim)(torch.arange(max_length)[:, None]), persistent=False)
        for table in tables:
            nn.init.normal_(table.weight, std=1 / self.scale)
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def tokens(self, values: Int[Tensor, "n k"], lengths: Int[Tensor, " items"] | None) -> Tokens:
        """Return one token per note; its coordinate is its index in the item.

        Raises:
            ValueError: an item is longer than ``max_length``, the ids have another number of fields, or there are no lengths.
        """
        if lengths is None:
            raise ValueError("pieces of music have lengths: the transform must mark its items ragged.")
        if values.shape[1] != len(self.vocab_sizes):
            raise ValueError(f"ids have {values.shape[1]} fields; vocab_sizes {self.vocab_sizes} has {len(self.vocab_sizes)}.")
        if len(values) > self.max_length and int(lengths.max()) > self.max_length:
            longest = int(lengths.max())
            raise ValueError(f"an item has {longest} tokens; max_length is {self.max_length} (set it, or max_notes of the transform).")
        ends = lengths.cumsum(0)
        starts = torch.repeat_interleave(ends - lengths, lengths, output_size=len(values))
        index = torch.arange(len(values), device=values.device) - starts
        return Tokens(inputs=values, lengths=lengths, coordinates=index[:, None])

    def forward(self, tokens: Tokens, shown_as_mask: Bool[Tensor, " n"] | None = None) -> Float[Tensor, "n d"]:
        """Embed tokens; where ``shown_as_mask``, every field has its MASK id."""
        ids = tokens.inputs
        if shown_as_mask is not None:
            ids = torch.where(shown_as_mask[:, None], self.mask_ids, ids)
        fields = torch.cat([embedding(column) for embedding, column in zip(self.fields, ids.unbind(1), strict=True)], dim=1)
        return self.proj(fields * self.scale) + self.positions[tokens.coordinates[:, 0]]

    def random_inputs(self, tokens: Tokens, noise: Float[Tensor, " n"]) -> Int[Tensor, "n k"]:
        """Return random ids, each field uniform over its full vocabulary, PAD and MASK included, as published.

        Each field's number is a hash of the token's noise and the field, so any number of fields is served.
        """
        bits = (noise.double() * NOISE_VALUES).long()[:, None].expand(-1, len(self.vocab_sizes))
        field = torch.arange(len(self.vocab_sizes), device=noise.device).expand_as(bits)
        sizes = torch.tensor(self.vocab_sizes, device=noise.device)
        return (uniform(bits, field).double() * sizes).long()
