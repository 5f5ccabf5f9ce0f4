"""Where the clusters of all nodes of a level begin: k-means of a sample of each node, many nodes at once.

Letters in shapes: m sampled vectors, g nodes of a group, r samples of a node, d width, b branching, t candidates.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multimodal.masking.noise import uniform
from multimodal.tokenizers.quantizers.nearest import FLOAT32

GROUP_ROWS, ROUNDS = 2048, 10
STREAM = 1 << 20
"""Of the noise; those below are of levels."""


class Starts(NamedTuple):
    """The first centroids of the children of some nodes.

    Args:
        centroids: ``(p, b, d)``.
        children: ``(p,)`` int64: so many of them count.
    """

    centroids: Tensor
    children: Tensor


def starts(samples: Float[Tensor, "m d"], counts: Int[Tensor, " p"], wanted: Int[Tensor, " p"], seed: Int[Tensor, " p"]) -> Starts:
    """Return the first centroids of the children of nodes.

    Nodes of about as many samples are computed side by side, filled up to the longest.

    Args:
        samples: of all nodes, end to end.
        counts: samples of each node, at least 1.
        wanted: the children that each node is to have, at least 1. It gets fewer where its samples have fewer different values.
        seed: of each node.
    """
    order, first, most = counts.argsort(stable=True), counts.cumsum(0) - counts, int(wanted.max())
    centroids = samples.new_empty(len(counts), most, samples.shape[1])
    children = torch.empty_like(counts)
    while len(order):
        size = max(1, GROUP_ROWS // int(counts[order[-1]]))  # the longest first: the others fit in
        order, group = order[:-size], order[-size:]
        number = torch.arange(int(counts[group].max()), device=counts.device)
        valid = number < counts[group, None]
        vectors = samples[torch.where(valid, first[group, None] + number, first[group, None])]
        centroids[group], children[group] = _group(vectors, valid, wanted[group], seed[group], most)
    return Starts(centroids, children)


def _group(
    vectors: Float[Tensor, "g r d"], valid: Bool[Tensor, "g r"], wanted: Int[Tensor, " g"], seed: Int[Tensor, " g"], most: int
) -> Starts:
    """Return starts of nodes of one number of samples; ``vectors`` are changed.

    They are seen from their mean, so that rounding is small beside their distances.
    """
    share = valid / valid.sum(1, keepdim=True)
    mean = torch.bmm(share[:, None], vectors)  # g 1 d
    vectors.sub_(mean).mul_(valid[..., None])
    drawn = _draw(vectors, valid, wanted, seed, most)
    return Starts(_refine(vectors, valid, drawn).add_(mean), drawn.children)


def _draw(vectors: Tensor, valid: Tensor, wanted: Tensor, seed: Tensor, most: int) -> Starts:
    """Draw samples far from each other: greedy k-means++ (Arthur and Vassilvitskii 2007, https://dl.acm.org/doi/10.5555/1283383.1283494).

    Each further start is, of some candidates drawn in proportion to the squared distance from the starts so far, the one that leaves the
    smallest sum of these. Samples that are equal up to rounding are drawn once.
    """
    squares, tries = vectors.square().sum(2), 2 + int(math.log(most))
    picked = (uniform(seed, torch.zeros_like(seed), STREAM).double() * valid.sum(1)).long()[:, None]  # g 1
    closest = _distance(vectors, squares, picked)[..., 0].where(valid, 0)
    children = torch.ones_like(wanted)
    counter = torch.arange(tries, device=seed.device).expand(len(seed), -1)
    for number in range(1, most):
        total = closest.double().cumsum(1)
        children += (number < wanted) & (total[:, -1] > 0)
        noise = uniform(seed[:, None].expand_as(counter), counter + number * tries, STREAM).double()
        candidates = torch.searchsorted(total, noise * total[:, -1:], right=True).clamp(max=valid.shape[1] - 1)  # g t
        left = torch.minimum(_distance(vectors, squares, candidates), closest[..., None])  # g r t
        best = left.sum(1).argmin(1, keepdim=True)
        closest = left.gather(2, best[:, None].expand(-1, left.shape[1], -1))[..., 0]
        picked = torch.cat([picked, candidates.gather(1, best)], 1)
    return Starts(_take(vectors, picked), children)


def _take(vectors: Float[Tensor, "g r d"], which: Int[Tensor, "g t"]) -> Float[Tensor, "g t d"]:
    return vectors.gather(1, which[..., None].expand(-1, -1, vectors.shape[2]))


def _distance(vectors: Float[Tensor, "g r d"], squares: Float[Tensor, "g r"], which: Int[Tensor, "g t"]) -> Float[Tensor, "g r t"]:
    """Return squared distances from some of the vectors; 0 where they may be rounding."""
    sizes = squares[..., None] + squares.gather(1, which)[:, None]
    distance = torch.baddbmm(sizes, vectors, _take(vectors, which).mT, alpha=-2)
    return distance.where(distance > 4 * vectors.shape[2] * FLOAT32 * sizes, 0)


def _refine(vectors: Tensor, valid: Tensor, drawn: Starts) -> Float[Tensor, "g b d"]:
    """Move starts to the means of the samples nearest to them, some times; one that has none stays."""
    centroids, chosen = drawn.centroids, None
    number = torch.arange(centroids.shape[1], device=valid.device)
    missing = (number >= drawn.children[:, None])[:, None]
    for _ in range(ROUNDS):
        scores = torch.baddbmm(centroids.square().sum(2)[:, None], vectors, centroids.mT, beta=-0.5)
        before, chosen = chosen, scores.masked_fill_(missing, -torch.inf).argmax(2)
        if before is not None and torch.equal(before, chosen):
            break
        member = ((chosen[..., None] == number) & valid[..., None]).to(vectors.dtype)  # g r b
        counts = member.sum(1)[..., None]
        centroids = torch.where(counts > 0, torch.bmm(member.mT, vectors) / counts.clamp(min=1), centroids)
    return centroids
