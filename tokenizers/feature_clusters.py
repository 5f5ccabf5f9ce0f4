"""Features as tokens: the leaf of a tree of clusters that each comes to.

Letters in shapes: n features, d width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from multimodal.tokenizers.pretrained import PretrainedTokenizer
from multimodal.tokenizers.quantizers.hierarchical_k_means import Features, Listener, fit_levels
from multimodal.tokenizers.quantizers.hierarchical_k_means_state import TreeSettings
from multimodal.tokenizers.quantizers.hierarchical_k_means_tree import Level, descend, path_of


class HierarchicalKMeansTokenizer(PretrainedTokenizer):
    """The leaf of a tree of clusters as the id of a feature, found from the root down (VideoBERT, https://arxiv.org/abs/1904.01766).

    At each node a feature goes to the child with the nearest centroid: ``depth * branching`` comparisons instead of one with every leaf.
    The leaf is not always the nearest of all. Leaves are numbered from left to right, so that ids that are close have a way in common, and
    all lie at the same depth: a node that could not be split has one child. ``fit_tree`` makes it.

    Args:
        dim: width of the features.
        num_nodes: of each level below the root, none fewer than of the level above; the last are the leaves.
        branching: the most children of a node.
        standardize: whether features are taken to mean 0 and standard deviation 1, in each entry, before.

    Raises:
        ValueError: a setting outside its range, or nodes that are too many or too few for the level above.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, num_nodes: Sequence[int], branching: int = 12, standardize: bool = False) -> None:
        super().__init__()
        if dim < 1 or branching < 2 or not num_nodes:
            raise ValueError(f"dim and branching must be at least 1 and 2, and there must be a level: {dim}, {branching}, {num_nodes}.")
        for above, below in zip((1, *num_nodes), num_nodes, strict=False):
            if not above <= below <= above * branching:
                raise ValueError(f"num_nodes must grow from 1 by a factor of 1 to branching = {branching}, got {tuple(num_nodes)}.")
        self.dim, self.num_nodes, self.branching, self.standardize = dim, tuple(num_nodes), branching, standardize
        for number, (above, below) in enumerate(zip((1, *num_nodes), num_nodes, strict=False)):
            self.register_buffer(f"children_{number}", torch.zeros(above, dtype=torch.int64))
            self.register_buffer(f"centroids_{number}", torch.zeros(below, dim))
        if standardize:
            self.register_buffer("mean", torch.zeros(dim))
            self.register_buffer("std", torch.ones(dim))
        self._levels: list[Level] | None = None

    @property
    def vocab_sizes(self) -> tuple[int, ...]:
        """The number of leaves."""
        return (self.num_nodes[-1],)

    @property
    def depth(self) -> int:
        """Levels below the root."""
        return len(self.num_nodes)

    @property
    def levels(self) -> list[Level]:
        """The nodes of each level below the root, as features are standardized.

        Raises:
            ValueError: it was neither fitted nor loaded, or its numbers of children do not fit.
        """
        if self._levels is None:
            levels = []
            for number in range(self.depth):
                children, centroids = getattr(self, f"children_{number}"), getattr(self, f"centroids_{number}")
                if not bool(((children >= 1) & (children <= self.branching)).all()):
                    raise ValueError("the clusters are not fitted: make them with fit_tree, or load saved ones.")
                levels.append(Level.of(children, centroids))
            self._levels = levels
        return self._levels

    @property
    def leaf_centroids(self) -> Float[Tensor, "leaves d"]:
        """The centroid of each leaf, in the units of the features."""
        return self._restored(self.levels[-1].centroids)

    @torch.no_grad()
    def encode(self, values: Float[Tensor, "n d"], lengths: Int[Tensor, " items"] | None = None) -> Int[Tensor, " n"]:
        """Return the leaf of each feature.

        Args:
            values: features of all items end to end.
            lengths: of the items; each feature is encoded by itself, so they change nothing.

        Raises:
            ValueError: the features have another width, one is not finite, or the clusters are not fitted.
        """
        levels = self.levels
        if values.shape[1] != self.dim:
            raise ValueError(f"features must be {self.dim} wide, got {values.shape[1]}.")
        values = values.float()
        if not bool(values.square().sum().isfinite()):
            self._refuse(values)
        return descend((values - self.mean) / self.std if self.standardize else values, levels)

    @staticmethod
    def _refuse(values: Tensor) -> None:
        """Name the first feature that is not finite; there is none where the sum alone was too large."""
        for row in (~values.square().sum(1).isfinite()).nonzero()[:1, 0].tolist():
            place = int(values[row].square().isfinite().byte().argmin())
            raise ValueError(f"feature {row} holds {float(values[row, place])} at place {place}: its square must be finite.")

    def decode(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """Return the centroid of each leaf, in the units of the features.

        Raises:
            ValueError: an id is of no leaf.
        """
        return self._restored(self.levels[-1].centroids[self._known(ids)])

    def path(self, ids: Int[Tensor, " n"]) -> Int[Tensor, "n depth"]:
        """Return which child leads to each leaf, from the root down.

        Raises:
            ValueError: an id is of no leaf.
        """
        return path_of(self._known(ids), self.levels)

    def _known(self, ids: Tensor) -> Tensor:
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.num_nodes[-1]:
            raise ValueError(f"ids must be from 0 to {self.num_nodes[-1] - 1}, got {int(ids.min())} to {int(ids.max())}.")
        return ids

    def _restored(self, centroids: Tensor) -> Tensor:
        return centroids * self.std + self.mean if self.standardize else centroids

    def _load_weights(self, path: Path) -> None:
        super()._load_weights(path)
        try:
            assert len(self.levels) == self.depth
        except ValueError as error:
            raise ValueError(f"{path} holds no tree of clusters: {error}") from error

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        self._levels = None
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _apply(self, *args: Any, **kwargs: Any) -> HierarchicalKMeansTokenizer:
        self._levels = None
        super()._apply(*args, **kwargs)
        return self


def fit_tree(
    stream: Features,
    settings: TreeSettings,
    folder: str | Path | None = None,
    listener: Listener | None = None,
    device: str = "cpu",
) -> HierarchicalKMeansTokenizer:
    """Fit a tree of clusters to features, and return it as a tokenizer.

    Args:
        stream: arrays or tensors ``(n, d)`` of floating-point numbers. It is read about ten times for each level, and must give the same
            features in the same order each time; how it cuts them into arrays does not matter.
        settings: of the tree.
        folder: where the state is kept after each pass; a fit that was stopped goes on from there, to the same tree bit by bit. None: a fit
            that is stopped is lost.
        listener: called after each pass with what was done.
        device: where to compute.

    Raises:
        ValueError: the features are not what they must be or have changed, or the folder holds another fit.
    """
    state = fit_levels(stream, settings, Path(folder) if folder is not None else None, listener, device)
    num_nodes = [len(centroids) for _, centroids in state.levels]
    tokenizer = HierarchicalKMeansTokenizer(len(state.moments.sums), num_nodes, settings.branching, settings.standardize)
    weights = {"mean": state.moments.mean, "std": state.moments.std} if settings.standardize else {}
    for number, (children, centroids) in enumerate(state.levels):
        weights |= {f"children_{number}": children, f"centroids_{number}": centroids}
    tokenizer.load_state_dict(weights)
    return tokenizer.eval()
