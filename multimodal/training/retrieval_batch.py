"""What is compared in one step: the embeddings of all processes, with gradients, and which items are equal.

Letters in shapes: n rows of this process, m of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int, Shaped
from torch import Tensor, distributed
from torch.nn import functional as F

from multimodal.batch import Items
from multimodal.heads.retrieval import Embeddings
from multimodal.masking.noise import hashed

AT_ONCE = 2**24
"""Values that are hashed at a time."""
_AS_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def contents_of(items: Items) -> Int[Tensor, " items"]:
    """Return a number for the content of each item: equal for equal values, and different for others but for a chance of about 2 ** -60.

    It is the same in any batch and on any device: a sum of the values, each times a random number of its place.
    """
    values = items.values.reshape(len(items.values), -1)
    bits = values if values.dtype == torch.bool else values.view(_AS_INTEGERS[values.element_size()])
    if items.lengths is None:
        weight = hashed(torch.arange(bits.shape[1], device=bits.device))
        rows = bits.split(max(1, AT_ONCE // max(1, bits.shape[1])))
        return torch.cat([(own.long() * weight).sum(1) for own in rows])
    lengths, width = items.lengths, bits.shape[1]
    item = torch.repeat_interleave(lengths, output_size=len(bits))
    place = torch.arange(len(bits), device=bits.device) - (lengths.cumsum(0) - lengths)[item]
    weight = hashed(place[:, None] * width + torch.arange(width, device=bits.device))
    total = torch.zeros(len(items), dtype=torch.int64, device=bits.device).index_add(0, item, (bits.long() * weight).sum(1))
    return total + lengths * hashed(torch.full_like(lengths, -1))  # zeros at the end are no less than other values


def gathered(rows: Shaped[Tensor, "n ..."]) -> Shaped[Tensor, "m ..."]:
    """Return the rows of all processes, those of the first process first; all must call it together, with any number of rows.

    Gradients are exact: a row gets the sum of what all processes ask of it.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return rows
    return _Gather.apply(rows) if rows.is_floating_point() else _gather(rows)[0]  # type: ignore[no-untyped-call]


def _gather(rows: Tensor) -> tuple[Tensor, list[int]]:
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    lengths = [int(count) for count in torch.cat(counts).tolist()]
    padded = F.pad(rows, (0, 0) * (rows.ndim - 1) + (0, max(lengths) - len(rows))).contiguous()
    parts = [torch.empty_like(padded) for _ in lengths]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)]), lengths


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        joined, lengths = _gather(rows)
        rank = distributed.get_rank()
        ctx.own = slice(sum(lengths[:rank]), sum(lengths[: rank + 1]))
        return joined

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient[ctx.own]


@dataclass(frozen=True)
class Sides:
    """The items of two kinds of all processes.

    Args:
        embeddings: those of each kind.
        contents: ``(items,)`` int64, the content of each item, by kind.
        own: ``(items,)`` bool, True at items of this process, by kind.
    """

    embeddings: tuple[Embeddings, Embeddings]
    contents: tuple[Tensor, Tensor]
    own: tuple[Tensor, Tensor]

    @classmethod
    def of_all(cls, embeddings: Sequence[Embeddings], contents: Sequence[Tensor]) -> Sides:
        """Bring together the items of all processes.

        Args:
            embeddings: of this process, of the first and of the second kind.
            contents: as ``contents_of`` returns them, of both kinds.
        """
        rank = distributed.get_rank() if distributed.is_initialized() else 0
        kinds = [torch.full_like(x, kind) for kind, x in enumerate(contents)]
        local = Embeddings.join(embeddings)  # one exchange of both: those of the gradients must come in one order everywhere
        columns = (local.lengths, torch.cat(list(contents)), torch.cat(kinds), torch.full_like(local.lengths, rank))
        lengths, content, kind, of_rank = gathered(torch.stack(columns, 1)).unbind(1)
        whole = Embeddings(gathered(local.vectors), lengths)
        chosen = [(kind == number).nonzero()[:, 0] for number in range(2)]
        first, second = (whole.select(index) for index in chosen)
        return cls((first, second), (content[chosen[0]], content[chosen[1]]), (of_rank[chosen[0]] == rank, of_rank[chosen[1]] == rank))

    @property
    def pair_contents(self) -> Int[Tensor, "m 2"]:
        """The contents of pairs, where item i of one kind belongs to item i of the other."""
        return torch.stack(self.contents, 1)

    @property
    def equal(self) -> Tensor:
        """``(m, m)`` bool of such pairs: True where an item of the first kind goes with one of the second as well as with its own."""
        first, second = self.contents
        return (first[:, None] == first) | (second[:, None] == second)
