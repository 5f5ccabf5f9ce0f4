"""What the processes of a training run tell each other about their vectors; with one process nothing is said.

All of them must call these together.

Letters in shapes: n vectors of this process, m of all, d width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, distributed
from torch.nn import functional as F


def summed(values: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Return the sum of the values of all processes; they are changed in place."""
    if distributed.is_initialized():
        distributed.all_reduce(values)
    return values


def of_first(values: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Return the values of the first process, which must have as many as the others."""
    if distributed.is_initialized():
        values = values.contiguous()
        distributed.broadcast(values, 0)
    return values


def joined(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """Return the vectors of all processes, those of the first process first; they need not be equally many."""
    if not distributed.is_initialized():
        return vectors
    lengths = [torch.zeros((), dtype=torch.int64, device=vectors.device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(lengths, torch.tensor(len(vectors), device=vectors.device))
    longest = int(torch.stack(lengths).max())
    gathered = [vectors.new_empty(longest, vectors.shape[1]) for _ in lengths]
    distributed.all_gather(gathered, F.pad(vectors, (0, 0, 0, longest - len(vectors))))
    return torch.cat([part[: int(length)] for part, length in zip(gathered, lengths, strict=True)])
