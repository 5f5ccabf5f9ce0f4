"""Clusters of vectors and of directions.

Letters in shapes: n vectors, k clusters, d width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from multimodal.tokenizers.quantizers.nearest import nearest_code


def k_means(vectors: Float[Tensor, "n d"], num_clusters: int, rounds: int = 10) -> tuple[Float[Tensor, "k d"], Int[Tensor, " k"]]:
    """Return the means of clusters, and how many vectors chose each in the last round.

    The clusters begin as vectors drawn at random. One that no vector chooses stays where it is; of fewer vectors than clusters, some stand
    for several.

    Args:
        vectors: at least one.
        num_clusters: at least 1.
        rounds: each assigns the vectors and moves the means.
    """
    return _clusters(vectors, num_clusters, rounds, lambda sums, counts: sums / counts[:, None].clamp(min=1))


def spherical_k_means(
    directions: Float[Tensor, "n d"], num_clusters: int, rounds: int = 10
) -> tuple[Float[Tensor, "k d"], Int[Tensor, " k"]]:
    """Return the mean directions of clusters, and how many vectors chose each in the last round; otherwise as ``k_means``.

    Args:
        directions: of unit length, at least one.
        num_clusters: at least 1.
        rounds: each assigns the vectors and moves the means.
    """
    return _clusters(directions, num_clusters, rounds, lambda sums, counts: F.normalize(sums, dim=1))


@torch.no_grad()
def _clusters(
    vectors: Tensor, num_clusters: int, rounds: int, mean_of: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Float[Tensor, "k d"], Int[Tensor, " k"]]:
    """Return means and counts; ``mean_of`` makes the means from the sums and the counts."""
    drawn = torch.randperm(len(vectors), device=vectors.device)
    means = vectors[drawn[torch.arange(num_clusters, device=vectors.device) % len(vectors)]]
    counts = torch.zeros(num_clusters, dtype=torch.int64, device=vectors.device)
    for _ in range(rounds):
        counts, sums = count_and_sum(vectors, nearest_code(vectors, means), num_clusters)
        means = torch.where(counts[:, None] > 0, mean_of(sums, counts), means)
    return means, counts


def count_and_sum(
    vectors: Float[Tensor, "n d"], ids: Int[Tensor, " n"], num_clusters: int
) -> tuple[Int[Tensor, " k"], Float[Tensor, "k d"]]:
    """Return the number and the sum of the vectors of each cluster.

    Args:
        vectors: to count.
        ids: the cluster of each.
        num_clusters: of which some may be empty.
    """
    sums = vectors.new_zeros(num_clusters, vectors.shape[1]).index_add_(0, ids, vectors)
    return torch.bincount(ids, minlength=num_clusters), sums
