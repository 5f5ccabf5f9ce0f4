"""A tree of 12^4 clusters of 200,000 features, side by side with trees of scikit-learn and faiss, and with a flat look-up of the leaves.

``python -m benchmarks.hierarchical_k_means [--features 200000] [--dim 1024] [--branching 12] [--depth 4] [--rounds 3] [--peers FOLDER]``

The features are made: 4,000 sources of unequal frequency in groups, in 64 dimensions, turned into ``dim`` and cut off at 0, as features
before a classifier are. The peers have no trees; each node is split by one call, and the features of its children are then picked out, as
re-implementations of VideoBERT do: scikit-learn's ``MiniBatchKMeans`` with batches of 500, and faiss's ``Kmeans`` with its defaults. Times
are of the processor, of one fit. The distortion is the mean squared distance of the features from the centroid of the leaf to which the
tree leads them, as a share of their variance. Looking up is timed on features that were not fitted. ``--peers`` is a folder with faiss:
``pip install --target FOLDER --no-deps faiss-cpu``; it is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.side_by_side import compare, cpu_seconds, machine
from multimodal.tokenizers.feature_clusters import HierarchicalKMeansTokenizer, fit_tree
from multimodal.tokenizers.quantizers.hierarchical_k_means_state import TreeSettings

PACKAGES = ("torch", "scikit-learn", "faiss-cpu", "numpy")
NUM_SOURCES, NUM_GROUPS, INNER = 4000, 40, 64
Array = NDArray[np.float32]
Splitter = Callable[[Array, int], tuple[Array, Callable[[Array], NDArray[np.int64]]]]


class Node(NamedTuple):
    """A node of a peer's tree: how it sends features on, and where to; a leaf has neither."""

    centroid: Array
    send: Callable[[Array], NDArray[np.int64]] | None = None
    children: tuple[Node, ...] = ()


def main() -> int:
    """Print a table of the fits and one of looking up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("features", 200_000), ("dim", 1024), ("branching", 12), ("depth", 4), ("rounds", 3), ("lookups", 20_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--peers", help="folder with peers that are not in the environment")
    options = parser.parse_args()
    if options.peers:
        sys.path.append(options.peers)
    torch.set_num_threads(1)
    made = made_features(options.features + options.lookups, options.dim)
    features, fresh = made[: options.features], made[options.features :]
    shown, finders = fitted(features, fresh, options.branching, options.depth)
    console = Console(width=140)
    console.print(shown)
    console.print(compare({name: lambda find=find: len(find(fresh)) for name, find in finders.items()}, "lookups", options.rounds))
    console.print(machine(PACKAGES))
    return 0


def made_features(count: int, dim: int) -> Array:
    """Return the features; see above."""
    rng = np.random.default_rng(0)
    groups = rng.normal(size=(NUM_GROUPS, INNER)) * 2
    sources = groups[rng.integers(NUM_GROUPS, size=NUM_SOURCES)] + rng.normal(size=(NUM_SOURCES, INNER))
    share = 1 / np.arange(10, NUM_SOURCES + 10)
    turn, shift = rng.normal(size=(INNER, dim)).astype(np.float32) / INNER**0.5, rng.normal(size=dim).astype(np.float32)
    features = np.empty((count, dim), np.float32)
    for start in range(0, count, 10_000):
        own = features[start : start + 10_000]
        source = rng.choice(NUM_SOURCES, size=len(own), p=share / share.sum())
        inner = sources[source] + 0.4 * rng.normal(size=(len(own), INNER))
        own[:] = np.maximum(inner.astype(np.float32) @ turn + shift + 0.1 * rng.normal(size=own.shape).astype(np.float32), 0)
    return features


def fitted(features: Array, fresh: Array, branching: int, depth: int) -> tuple[Table, dict[str, Callable[[Array], Any]]]:
    """Fit each tree once; return what to print, and name -> what finds the leaves."""
    variance = float(features.var(0, dtype=np.float64).sum())
    shown = Table("tree", "CPU-s", "ours is faster by", "leaves", "distortion", "of features not fitted")
    finders: dict[str, Callable[[Array], Any]] = {}
    began = cpu_seconds()
    tokenizer = fit_tree([features], TreeSettings(branching=branching, depth=depth))
    ours = cpu_seconds() - began
    told = [f"{left(lambda x: restored(tokenizer, x), part) / variance:.4f}" for part in (features, fresh)]
    add(shown, "multimodal", f"{ours:,.0f}", "", f"{tokenizer.vocab_sizes[0]:,}", *told)
    finders["multimodal, down the tree"] = lambda x: tokenizer.encode(torch.from_numpy(x))
    for name, splitter in splitters().items():
        began = cpu_seconds()
        root = grown(features, splitter, branching, depth)
        seconds = cpu_seconds() - began
        told = [f"{left(lambda x, root=root: walked(root, x), part) / variance:.4f}" for part in (features, fresh)]
        add(shown, name, f"{seconds:,.0f}", f"{seconds / ours:.2f}x", f"{num_leaves(root):,}", *told)
        finders[f"{name}, down the tree"] = lambda x, root=root: walked(root, x)
    if importlib.util.find_spec("faiss"):
        finders["faiss, all leaves"] = flat(tokenizer)
    return shown, finders


def add(shown: Table, *row: str) -> None:
    """Add a row, and tell of it at once: the next takes minutes."""
    shown.add_row(*row)
    print(*row, sep="  ", file=sys.stderr, flush=True)


def restored(tokenizer: HierarchicalKMeansTokenizer, x: Array) -> Array:
    found: Array = tokenizer.decode(tokenizer.encode(torch.from_numpy(x))).numpy()
    return found


def left(restore: Callable[[Array], Array], x: Array) -> float:
    """Return the mean squared distance from what is restored."""
    parts = [x[start : start + 10_000] for start in range(0, len(x), 10_000)]
    return sum(float(np.square(part - restore(part)).sum(dtype=np.float64)) for part in parts) / len(x)


def splitters() -> dict[str, Splitter]:
    """Return what is installed."""
    found: dict[str, Splitter] = {}
    if importlib.util.find_spec("faiss"):
        found["faiss Kmeans"] = by_faiss
    if importlib.util.find_spec("sklearn"):
        found["scikit-learn MiniBatchKMeans"] = by_scikit_learn
    return found


def by_scikit_learn(x: Array, count: int) -> tuple[Array, Callable[[Array], NDArray[np.int64]]]:
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(count, batch_size=500, random_state=0, n_init=1).fit(x)
    return model.cluster_centers_, model.predict


def by_faiss(x: Array, count: int) -> tuple[Array, Callable[[Array], NDArray[np.int64]]]:
    import faiss

    faiss.omp_set_num_threads(1)
    model = faiss.Kmeans(x.shape[1], count, seed=0, min_points_per_centroid=1)
    model.train(x)
    return model.centroids, lambda rows: model.index.search(rows, 1)[1][:, 0]


def grown(x: Array, split: Splitter, branching: int, depth: int) -> Node:
    """Return a tree; a node of one feature is a leaf."""
    if depth == 0 or len(x) < 2:
        return Node(x.mean(0))
    centroids, send = split(x, min(branching, len(x)))
    child = send(x)
    below = [
        grown(x[child == number], split, branching, depth - 1) if (child == number).any() else Node(centroids[number])
        for number in range(len(centroids))
    ]
    return Node(x.mean(0), send, tuple(below))


def walked(node: Node, x: Array) -> Array:
    """Return the centroid of the leaf of each feature."""
    if node.send is None:
        return np.broadcast_to(node.centroid, x.shape)
    found, child = np.empty_like(x), node.send(x)
    for number in np.unique(child):
        rows = child == number
        found[rows] = walked(node.children[number], x[rows])
    return found


def num_leaves(node: Node) -> int:
    return sum(map(num_leaves, node.children)) or 1


def flat(tokenizer: HierarchicalKMeansTokenizer) -> Callable[[Array], Any]:
    """Return faiss's exhaustive search of our leaves, on one thread."""
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatL2(tokenizer.dim)
    index.add(tokenizer.leaf_centroids.numpy())
    return lambda x: index.search(x, 1)[1][:, 0]


if __name__ == "__main__":
    raise SystemExit(main())
