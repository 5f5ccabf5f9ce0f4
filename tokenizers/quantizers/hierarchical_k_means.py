"""Hierarchical k-means of more features than fit into memory (VideoBERT, https://arxiv.org/abs/1904.01766, section 4.1).

Letters in shapes: n features, p nodes of the level above, k nodes of a level, d width, b branching.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from multimodal.masking.noise import uniform
from multimodal.tokenizers.quantizers.hierarchical_k_means_starts import starts
from multimodal.tokenizers.quantizers.hierarchical_k_means_state import (
    FitState,
    Moments,
    Progress,
    TreeSettings,
    read_state,
    write_state,
)
from multimodal.tokenizers.quantizers.hierarchical_k_means_tree import Level, nearest_child

Features = Iterable[Tensor | NDArray[np.floating]]
Listener = Callable[[Progress], None]

ROWS, PIECE, PER_CHILD, SPLIT = 8192, 512, 8, 0.01
"""Features of one step, and of a part of it whose memory stays in the cache; samples of a node for each child; how far the halves of a
cluster begin from its centroid, in its deviations."""


class FeatureBatches:
    """Features of a stream in batches of one size, wherever the stream cuts them: the order alone matters.

    Args:
        stream: arrays or tensors ``(n, d)`` of floating-point numbers; it is read several times, and must give the same each time.
        device: where the batches are to lie.

    Raises:
        ValueError: the stream can be read only once.
    """

    def __init__(self, stream: Features, device: torch.device) -> None:
        if iter(stream) is stream:
            raise ValueError("features are read several times, so they must be a list or an object with __iter__, not an iterator.")
        self.stream, self.device = stream, device
        self.moments: Moments | None = None
        self.standardize = False

    @property
    def mean(self) -> Float[Tensor, " d"]:
        """The mean of the batches."""
        assert self.moments is not None
        mean = self.moments.mean.to(self.device)
        return torch.zeros_like(mean) if self.standardize else mean

    def __iter__(self) -> Iterator[Float[Tensor, "n d"]]:
        """Yield the batches, float32, standardized if so set.

        Raises:
            ValueError: the stream gives another number of features than at first.
        """
        moments, count = self.moments, 0
        for batch in _batches(self.stream):
            count += len(batch)
            batch = batch.to(self.device)
            if moments is not None and self.standardize:
                batch = (batch - moments.mean.to(self.device)) / moments.std.to(self.device)
            yield batch
        if moments is not None and count != moments.count:
            raise ValueError(f"the stream gave {moments.count} features at first and {count} later: it must give the same each time.")

    def look(self) -> Moments:
        """Return what all features tell, and remember it.

        Raises:
            ValueError: there are no features, or one is not finite; the message says which.
        """
        count, sums, squares = 0, torch.zeros(()), torch.zeros(())
        for batch in _batches(self.stream):
            finite = batch.norm(dim=1).square().isfinite()
            if not bool(finite.all()):
                row = int(finite.byte().argmin())
                place = int(batch[row].square().isfinite().byte().argmin())
                raise ValueError(f"feature {count + row} holds {float(batch[row, place])} at place {place}: its square must be finite.")
            for part in batch.split(PIECE):
                exact = part.double()
                sums, squares = sums + exact.sum(0), squares + exact.square_().sum(0)
            count += len(batch)
        if not count:
            raise ValueError("there are no features to make clusters of.")
        self.moments = Moments(count, sums, squares)
        return self.moments


def fit_levels(
    stream: Features, settings: TreeSettings, folder: Path | None = None, listener: Listener | None = None, device: str = "cpu"
) -> FitState:
    """Fit a tree of clusters, level by level; all nodes of a level in the same passes over the features.

    A level begins with k-means of a sample of each node, and goes on with Lloyd's means over all features. A cluster that a pass leaves
    empty takes half of the sibling with the largest sum of squared distances; one that is empty after the last pass is left out.
    Of each feature 4 bytes are kept in memory, and some 30 for a moment at the beginning of a level.

    Args:
        stream: see ``FeatureBatches``.
        settings: of the tree.
        folder: where the state is written after each pass; a fit that was stopped goes on from there, to the same tree bit by bit.
        listener: called after each pass.
        device: where to compute. The state says nothing of it; another device may round means otherwise.

    Raises:
        ValueError: the features are not what they must be or have changed, or the folder holds another fit.
    """
    features = FeatureBatches(stream, torch.device(device))
    state = read_state(settings, folder) if folder else None
    moments = features.look()
    if state is not None and not state.moments.same(moments):
        raise ValueError(f"{folder} holds a fit of other features: {state.moments.count} of them, here are {moments.count}.")
    features.standardize = settings.standardize
    return _Fit(features, settings, state or FitState(moments), folder, listener).run()


class _Fit:
    """One fit: its state, and the node that each feature is in, which is not saved but found again."""

    def __init__(
        self, features: FeatureBatches, settings: TreeSettings, state: FitState, folder: Path | None, listener: Listener | None
    ) -> None:
        self.features, self.settings, self.state, self.folder, self.listener = features, settings, state, folder, listener
        self.nodes = torch.zeros(state.moments.count, dtype=torch.int32)

    @torch.no_grad()
    def run(self) -> FitState:
        """Do what is left."""
        state, device = self.state, self.features.device
        levels = [Level.of(children.to(device), centroids.to(device)) for children, centroids in state.levels]
        if state.distortion is not None:
            return state
        self._tell(Progress(0, "features"))
        distortion = self._descend(levels) if levels else math.nan
        while len(levels) < self.settings.depth:
            levels.append(self._fit_level(levels[-1].centroids if levels else self.features.mean[None]))
            passes = len(state.distortions)
            state.levels.append((levels[-1].children.cpu(), levels[-1].centroids.cpu()))
            state.open, state.distortions = None, []
            self._save()
            distortion = self._descend(levels[-1:])
            self._tell(Progress(len(levels), "level", passes, len(levels[-1].centroids), distortion))
        state.counts, state.distortion = torch.bincount(self.nodes, minlength=len(levels[-1].centroids)), distortion
        self._save()
        return state

    def _fit_level(self, above: Float[Tensor, "p d"]) -> Level:
        """Return the level below nodes with these centroids."""
        state, settings, number = self.state, self.settings, len(self.state.levels) + 1
        if state.open is None:
            level = self._starts(above)
            self._keep(level)
            self._tell(Progress(number, "starts", 0, len(level.centroids)))
        else:
            level = Level.of(*(part.to(above.device) for part in state.open))
        while not _settled(state.distortions, settings):
            last = len(state.distortions) + 1 == settings.max_passes
            level, distortion, split = self._move(level, last)
            state.distortions.append(math.inf if split else distortion)  # a split is to be followed by a pass
            self._keep(level)
            self._tell(Progress(number, "means", len(state.distortions), len(level.centroids), distortion))
        return level

    def _starts(self, above: Float[Tensor, "p d"]) -> Level:
        """Return the first centroids below each node: its own, or those of k-means of a sample."""
        settings, device = self.settings, above.device
        counts = torch.bincount(self.nodes, minlength=len(above))
        wanted = (counts // settings.min_cluster_size).clamp(1, settings.branching)
        children, table = torch.ones_like(counts), above[:, None].repeat(1, settings.branching, 1)
        split = (wanted > 1).nonzero()[:, 0]
        if len(split):
            samples, sampled = self._sample(split, len(above))
            seed = settings.seed + (split + 1) * (1 << 32)
            began = starts(samples, sampled.to(device), wanted[split].to(device), seed.to(device))
            children[split] = began.children.cpu()
            table[split.to(device), : began.centroids.shape[1]] = began.centroids
        there = torch.arange(settings.branching) < children[:, None]
        return Level.of(children.to(device), table[there.to(device)])

    def _sample(self, split: Int[Tensor, " q"], num_nodes: int) -> tuple[Float[Tensor, "m d"], Int[Tensor, " q"]]:
        """Return features drawn from the nodes that are to be split, node by node, and how many of each."""
        most = max(self.settings.sample_rows // len(split), PER_CHILD * self.settings.branching)
        number = torch.full((num_nodes,), -1).scatter_(0, split, torch.arange(len(split)))
        kept, nodes = _drawn(number[self.nodes], most, self.settings.seed, len(self.state.levels))
        rows, done, position = None, 0, 0
        for batch, _ in self._with_nodes():
            chosen = kept[position : position + len(batch)].to(batch.device)
            if rows is None:
                rows = batch.new_empty(len(nodes), batch.shape[1])
            part = batch[chosen]
            rows[done : done + len(part)] = part
            done, position = done + len(part), position + len(batch)
        assert rows is not None
        return rows[nodes.argsort(stable=True).to(rows.device)], torch.bincount(nodes, minlength=len(split))

    def _move(self, level: Level, last: bool) -> tuple[Level, float, bool]:
        """Move the centroids to the means of their features; also return the mean squared distance, and whether a cluster was split."""
        size, dim = level.centroids.shape
        counts = torch.zeros(size, dtype=torch.int64, device=level.centroids.device)
        sums, squares = counts.new_zeros(size, dim, dtype=torch.float64), counts.new_zeros(size, dtype=torch.float64)
        for batch, nodes in self._with_nodes():
            chosen = nearest_child(batch, nodes, level)
            counts += torch.bincount(chosen, minlength=size)
            for part, which in zip(batch.split(PIECE), chosen.split(PIECE), strict=True):
                exact = part.double()
                _add(sums, which, exact)
                _add(squares, which, exact.square_().sum(1))
        mean_squares = sums.square().sum(1) / counts.clamp(min=1)
        spread = torch.where(squares - mean_squares > 1e-12 * squares, squares - mean_squares, 0)
        centroids = torch.where(counts[:, None] > 0, (sums / counts[:, None].clamp(min=1)).float(), level.centroids)
        distortion = float(spread.sum()) / len(self.nodes)
        moved = Level.of(level.children, centroids)
        if not last:
            centroids, split = _split(moved, counts, spread, self.settings.seed)
            if split:
                return Level.of(level.children, centroids), distortion, True
        done = last or _settled([*self.state.distortions, distortion], self.settings)
        return _without_empty(moved, counts) if done else moved, distortion, False

    def _descend(self, levels: list[Level]) -> float:
        """Take all features down these levels; return their mean squared distance from the centroids of the last."""
        position, total = 0, 0.0
        for batch, nodes in self._with_nodes():
            for level in levels:
                nodes = nearest_child(batch, nodes, level)
            self.nodes[position : position + len(batch)] = nodes.int().cpu()
            position += len(batch)
            for part, which in zip(batch.split(PIECE), nodes.split(PIECE), strict=True):
                total += float((part - levels[-1].centroids[which]).square_().sum(1).sum(dtype=torch.float64))
        return total / len(self.nodes)

    def _with_nodes(self) -> Iterator[tuple[Tensor, Tensor]]:
        position = 0
        for batch in self.features:
            nodes = self.nodes[position : position + len(batch)]
            if len(nodes) < len(batch):
                raise ValueError(f"the stream gave {len(self.nodes)} features at first and more later: it must give the same each time.")
            position += len(batch)
            yield batch, nodes.to(batch.device, torch.int64)

    def _keep(self, level: Level) -> None:
        self.state.open = (level.children.cpu(), level.centroids.cpu())
        self._save()

    def _save(self) -> None:
        if self.folder:
            write_state(self.state, self.settings, self.folder)

    def _tell(self, progress: Progress) -> None:
        if self.listener:
            self.listener(progress)


def _settled(distortions: list[float], settings: TreeSettings) -> bool:
    """Return whether a level needs no further pass; infinite is the distortion of a pass after which a cluster was split."""
    if len(distortions) >= settings.max_passes:
        return True
    before, now = [math.inf, math.inf, *distortions][-2:]
    return now == 0 or (math.isfinite(now) and now >= before * (1 - settings.tolerance))


def _drawn(nodes: Int[Tensor, " n"], most: int, seed: int, level: int) -> tuple[Tensor, Int[Tensor, " m"]]:
    """Draw at most so many features of each node; -1 is no node. Return ``(n,)`` bool, True where drawn, and the nodes of those."""
    noise = uniform(torch.full_like(nodes, seed), torch.arange(len(nodes)), stream=level)
    order = noise.argsort(stable=True)
    order = order[nodes[order].argsort(stable=True)]
    own = nodes[order]
    begins = torch.searchsorted(own, own)  # of each node among the sorted
    kept = torch.zeros(len(nodes), dtype=torch.bool)
    kept[order] = (torch.arange(len(nodes)) - begins < most) & (own >= 0)
    return kept, nodes[kept]


def _add(sums: Tensor, which: Tensor, values: Tensor) -> None:
    """Add rows to sums in an order that is the same each time."""
    if sums.is_cuda:
        sums.index_put_((which,), values, accumulate=True)  # it sorts; ``index_add_`` is faster, but adds in any order there
    else:
        sums.index_add_(0, which, values)


def _without_empty(level: Level, counts: Tensor) -> Level:
    """Leave out the clusters without features; a node that has none at all keeps its first."""
    kept, parent = counts > 0, level.parent
    whole = torch.zeros_like(level.children).index_add_(0, parent, counts)
    kept[level.first[whole == 0]] = True
    return Level.of(torch.zeros_like(level.children).index_add_(0, parent, kept.long()), level.centroids[kept])


def _split(level: Level, counts: Tensor, spread: Tensor, seed: int) -> tuple[Tensor, bool]:
    """Give empty clusters half of their siblings with the largest sums of squared distances, one each; return whether there were such.

    Both halves begin beside the old centroid, on either side. Siblings whose features are all equal are left alone.
    """
    centroids = level.centroids.clone()
    index, there = level.table(torch.arange(len(level.children), device=counts.device))
    empty = (counts[index] == 0) & there
    largest, donors = spread[index].where(there, -1).sort(dim=1, descending=True, stable=True)
    rank = (empty.cumsum(1) - 1).clamp(min=0)
    can = empty & (largest.gather(1, rank) > 0)
    new, old = index[can], index.gather(1, donors.gather(1, rank))[can]
    number = torch.arange(centroids.shape[1], device=counts.device)
    side = torch.where(uniform(torch.full_like(number, seed), number, stream=1 << 21) < 0.5, -1.0, 1.0)
    step = (SPLIT * (spread[old] / counts[old] / centroids.shape[1]).sqrt())[:, None].float() * side
    centroids[new], centroids[old] = level.centroids[old] + step, level.centroids[old] - step
    return centroids, len(new) > 0


def _batches(stream: Features) -> Iterator[Float[Tensor, "n d"]]:
    """Yield all features in order, float32, so many at once; the last are fewer. A batch is to be used before the next is asked for.

    Raises:
        ValueError: an array has not two axes or no floating-point numbers, or another width than the first.
    """
    buffer, filled = torch.empty(0, 0), 0
    for number, array in enumerate(stream):
        part = _checked(number, array, buffer.shape[1])
        if not buffer.numel():
            buffer = torch.empty(ROWS, part.shape[1])
        for start in range(0, len(part), ROWS):
            piece = part[start : start + ROWS]
            fits = min(len(piece), ROWS - filled)
            buffer[filled : filled + fits] = piece[:fits]
            filled += fits
            if filled == ROWS:
                yield buffer
                filled = len(piece) - fits
                buffer[:filled] = piece[fits:]
    if filled:
        yield buffer[:filled]


def _checked(number: int, array: Tensor | NDArray[np.floating], width: int) -> Tensor:
    part = array.detach() if isinstance(array, Tensor) else torch.from_numpy(np.array(array, copy=not array.flags.writeable))
    if part.ndim != 2 or not part.is_floating_point() or part.shape[1] < 1 or (width and part.shape[1] != width):
        wanted = f"(n, {width})" if width else "(n, d)"
        raise ValueError(f"array {number} of the features is {part.dtype} of shape {tuple(part.shape)}; floating point {wanted} is wanted.")
    return part
