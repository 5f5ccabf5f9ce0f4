"""The spelling around a token: embeddings of the n-grams that end at it.

Letters in shapes: n tokens of all items end to end, d width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal.masking.noise import hashed

MULTIPLIER = 1_000_003
"""Of the polynomial that makes one number of an n-gram; int64 wraps around."""


class HashedNgrams(nn.Module):
    """The mean embedding of the n-grams that end at a token; their rows in one table are hashes.

    As in the Byte Latent Transformer (https://arxiv.org/abs/2412.09871, section 3.2.1) and fastText (https://arxiv.org/abs/1607.04606).
    An encoder of bytes or characters so begins with what linear classifiers of n-grams see. N-grams that would begin before the text, or
    hold a hidden token, are left out of the mean; where none is left it is 0. N-grams that fall on one row share it.

    Departures from the Byte Latent Transformer: one table for all lengths, which are told apart by the hash; and the mean of what is there
    instead of a sum over a constant.

    Args:
        dim: width.
        lengths: of the n-grams, in tokens, each at least 2. Byte Latent Transformer: 3 to 8.
        rows: of the table. Byte Latent Transformer: 500,002 for each length.

    Raises:
        ValueError: no lengths, a length below 2 or twice, or no rows.
    """

    def __init__(self, dim: int, lengths: Sequence[int] = (2, 3, 4), rows: int = 2**16) -> None:
        super().__init__()
        if not lengths or min(lengths) < 2 or len(set(lengths)) < len(lengths):
            raise ValueError(f"lengths of n-grams must be different numbers of at least 2, got {tuple(lengths)}.")
        if rows < 1:
            raise ValueError(f"rows must be at least 1, got {rows}.")
        self.lengths, self.rows = tuple(sorted(lengths)), rows
        self.table = nn.Embedding(rows, dim)
        nn.init.trunc_normal_(self.table.weight, std=0.02)

    def forward(
        self, ids: Int[Tensor, " n"], position: Int[Tensor, " n"], hidden: Bool[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n d"]:
        """Return the mean for each token.

        Args:
            ids: of the tokens.
            position: index of each in its item.
            hidden: True where the id is not to be seen; None: nowhere.
        """
        gram, room = ids, position + 1  # the number of an n-gram, and tokens that may belong to one
        if hidden is not None:
            place = torch.arange(len(ids), device=ids.device)
            last_hidden = torch.where(hidden, place, place.new_full((), -1)).cummax(0).values if len(ids) else place
            room = torch.minimum(room, place - last_hidden)
        rows, there = [], []
        for length in range(2, self.lengths[-1] + 1):
            gram = torch.cat([gram[:1], gram[:-1]]) * MULTIPLIER + ids
            if length in self.lengths:
                rows.append(hashed(gram + length).remainder(self.rows))
                there.append(room >= length)
        share = torch.stack(there, 1).to(self.table.weight.dtype)
        # one look-up for all lengths, because each makes a gradient as large as the table
        total = F.embedding_bag(torch.stack(rows, 1), self.table.weight, mode="sum", per_sample_weights=share)
        return total / share.sum(1, keepdim=True).clamp(min=1)
