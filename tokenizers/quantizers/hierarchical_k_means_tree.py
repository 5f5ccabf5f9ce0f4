"""A tree of clusters, and the way down it.

Letters in shapes: n vectors, p nodes of the level above, k nodes of a level, d width, b branching, g blocks, s vectors of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multimodal.tokenizers.quantizers.nearest import BFLOAT16, FLOAT32, best_pairs

ROWS, MOST_IN_BLOCK = 8192, 256
PIECE = 1 << 20
"""Numbers that are multiplied at once: they stay in the cache, and their memory is used again."""


@dataclass(frozen=True)
class Level:
    """The nodes of one level, the children of each node of the level above side by side, in the order of their parents.

    Args:
        children: ``(p,)`` int64, the number of children of each node above; at least 1.
        centroids: ``(k, d)`` float32.
        first: ``(p,)`` int64, the first child of each node above.
        half: ``(k,)`` float32, half the squared lengths of the centroids.
        longest: ``(p,)`` float32, the length of the longest centroid among the children of each node above.
    """

    children: Tensor
    centroids: Tensor
    first: Tensor
    half: Tensor
    longest: Tensor

    @classmethod
    def of(cls, children: Int[Tensor, " p"], centroids: Float[Tensor, "k d"]) -> Level:
        """Return a level; what else is known of it follows.

        Raises:
            ValueError: the children are not as many as the centroids, or a node has none.
        """
        if int(children.sum()) != len(centroids) or int(children.min()) < 1:
            raise ValueError(f"{len(centroids)} centroids are not the children of {len(children)} nodes with {children.tolist()[:20]}.")
        lengths = centroids.norm(dim=1)
        parent = torch.repeat_interleave(children, output_size=len(centroids))
        longest = lengths.new_zeros(len(children)).scatter_reduce(0, parent, lengths, "amax")
        return cls(children, centroids, children.cumsum(0) - children, centroids.square().sum(1) / 2, longest)

    @property
    def parent(self) -> Int[Tensor, " k"]:
        """The node above of each node."""
        return torch.repeat_interleave(self.children, output_size=len(self.centroids))

    def table(self, nodes: Int[Tensor, " g"]) -> tuple[Int[Tensor, "g b"], Tensor]:
        """Return the children of some nodes above, and ``(g, b)`` bool, True where there is one; elsewhere stands the first node."""
        number = torch.arange(int(self.children.max()), device=nodes.device)
        there = number < self.children[nodes, None]
        return torch.where(there, self.first[nodes, None] + number, 0), there


class Blocks(NamedTuple):
    """Vectors sorted into blocks of one size, each of one node.

    Args:
        vectors: ``(g, s)`` int64, the numbers of the vectors of each block; 0 where a block is not full.
        nodes: ``(g,)`` int64.
        place: ``(n,)`` int64, where each vector stands among the ``g * s`` places.
    """

    vectors: Tensor
    nodes: Tensor
    place: Tensor


@torch.no_grad()
def descend(vectors: Float[Tensor, "n d"], levels: Sequence[Level]) -> Int[Tensor, " n"]:
    """Return the node of the last level that each vector comes to from the root, always to the child with the nearest centroid.

    The leaf is not always the nearest of all leaves. The way is that of float64 arithmetic, on every device and in any batch.

    Args:
        vectors: finite numbers whose squares do not overflow.
        levels: from the children of the root on; without any, all vectors are in the root.
    """
    parts = [vectors.new_zeros(0, dtype=torch.int64)]
    for part in vectors.split(ROWS):
        nodes = part.new_zeros(len(part), dtype=torch.int64)
        for level in levels:
            nodes = nearest_child(part, nodes, level)
        parts.append(nodes)
    return torch.cat(parts)


@torch.no_grad()
def nearest_child(vectors: Float[Tensor, "n d"], nodes: Int[Tensor, " n"], level: Level) -> Int[Tensor, " n"]:
    """Return the child of each vector's node whose centroid is nearest to it; the first of equal ones.

    Products are in float32; where rounding may decide between children, these are compared in float64.

    Args:
        vectors: as in ``descend``.
        nodes: the node of the level above that each vector is in.
        level: of the children.
    """
    if not len(vectors):
        return nodes
    with torch.autocast(vectors.device.type, enabled=False):
        scores = _scores(vectors, nodes, level)
        near = scores >= (scores.amax(1) - 2 * _error(vectors, nodes, level))[:, None]
        number = near.byte().argmax(1)  # the first of them
        chosen = level.first[nodes] + number
        several = (near.sum(1) > 1).nonzero()[:, 0]
        if len(several):
            row, number = near[several].nonzero().unbind(1)
            child = level.first[nodes[several]][row] + number
            chosen[several] = best_pairs(vectors[several], level.centroids, row, child)
    return chosen


def _scores(vectors: Tensor, nodes: Tensor, level: Level) -> Float[Tensor, "n b"]:
    """Return the products with the children's centroids less half their squared lengths: the largest is that of the nearest."""
    blocks = _blocks(nodes, len(level.children))
    index, there = level.table(blocks.nodes)
    offset = level.half[index].masked_fill_(~there, torch.inf)
    scores = vectors.new_empty(*blocks.vectors.shape, index.shape[1])  # g s b
    at_once = max(1, PIECE // (vectors.shape[1] * sum(scores.shape[1:])))
    for start in range(0, len(index), at_once):
        own = slice(start, start + at_once)
        torch.bmm(vectors[blocks.vectors[own]], level.centroids[index[own]].mT, out=scores[own])
    return scores.sub_(offset[:, None]).flatten(0, 1)[blocks.place]


def _error(vectors: Tensor, nodes: Tensor, level: Level) -> Float[Tensor, " n"]:
    """Return how far a score of each vector is from the exact one, at most."""
    exact = torch.get_float32_matmul_precision() == "highest"  # other settings let products be rounded
    share = (vectors.shape[1] + 8) * FLOAT32 + (0 if exact else 3 * BFLOAT16)
    longest = level.longest[nodes]
    return 1.01 * share * longest * (vectors.norm(dim=1) + longest)


def _blocks(nodes: Int[Tensor, " n"], num_nodes: int) -> Blocks:
    """Sort vectors by node into blocks, so that the centroids of a node are fetched once for several vectors.

    A block is as long as a node has vectors on average: at most half of the places are then empty.
    """
    counts = torch.bincount(nodes, minlength=num_nodes)
    size = max(1, min(MOST_IN_BLOCK, len(nodes) // int((counts > 0).sum())))
    blocks = (counts + size - 1) // size
    order = nodes.argsort(stable=True)
    own = nodes[order]
    places = torch.arange(len(nodes), device=nodes.device) - (counts.cumsum(0) - counts)[own] + ((blocks.cumsum(0) - blocks) * size)[own]
    place = torch.empty_like(nodes).scatter_(0, order, places)
    of_block = torch.repeat_interleave(blocks)
    vectors = nodes.new_zeros(len(of_block) * size).scatter_(0, places, order)
    return Blocks(vectors.view(-1, size), of_block, place)


def path_of(ids: Int[Tensor, " n"], levels: Sequence[Level]) -> Int[Tensor, "n depth"]:
    """Return at each level the number of the child that leads from the root to a leaf."""
    numbers = []
    for level in reversed(levels):
        parent = torch.searchsorted(level.first, ids, right=True) - 1
        numbers.append(ids - level.first[parent])
        ids = parent
    return torch.stack(numbers[::-1], 1)
