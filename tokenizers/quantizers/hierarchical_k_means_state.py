"""What a fit of hierarchical k-means is set to, how far it is, and the file that it goes on from.

Letters in shapes: d width, p nodes of the level above, k nodes of a level.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from multimodal.atomic import atomic_file, remove_temporary

STATE_NAME = "hierarchical_k_means.safetensors"
SAID = "fit"


@dataclass(frozen=True)
class TreeSettings:
    """How a tree of clusters is fitted. The defaults are those of VideoBERT (https://arxiv.org/abs/1904.01766): 12^4 leaves.

    Args:
        branching: the most children that a node gets, from 2 to 4096.
        depth: levels below the root, from 1 to 16. All leaves lie on the last; a node that cannot be split has one child.
        min_cluster_size: a node of so many features is split in two at the earliest when it has twice as many; at least 1. It gets at
            most as many children as it has features, divided by this.
        standardize: take the mean off every entry of the features, and divide it by its standard deviation; both are kept.
        max_passes: over all features, for each level, at least 1.
        tolerance: a level is done when a pass lowers its mean squared distance by less than this share, in [0, 1).
        sample_rows: features in memory from which the clusters of a level begin, shared by its nodes; at least 1. A node gets 8 for each
            child at least.
        seed: of all that is drawn, at least 0.

    Raises:
        ValueError: a setting outside its range.
    """

    branching: int = 12
    depth: int = 4
    min_cluster_size: int = 1
    standardize: bool = False
    max_passes: int = 10
    tolerance: float = 1e-3
    sample_rows: int = 65536
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = {
            "branching": (2, 4096),
            "depth": (1, 16),
            "min_cluster_size": (1, math.inf),
            "max_passes": (1, math.inf),
            "sample_rows": (1, math.inf),
            "seed": (0, 2**31 - 1),
        }
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if not (isinstance(value, int) and least <= value <= most):
                raise ValueError(f"{name} must be a whole number {_range(least, most)}, got {value!r}.")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must be in [0, 1), got {self.tolerance}.")


class Progress(NamedTuple):
    """What a fit has just done.

    Args:
        level: from 1; 0 while the features are looked at.
        stage: ``features`` (counted and checked), ``starts`` (the first centroids of a level), ``means`` (moved once), ``level`` (done).
        passes: over the features that moved the centroids of this level.
        num_clusters: of this level.
        distortion: mean squared distance of the features from their centroids, in standardized units if they are; nan where not known.
    """

    level: int
    stage: str
    passes: int = 0
    num_clusters: int = 1
    distortion: float = math.nan


@dataclass(frozen=True)
class Moments:
    """What a look at all features tells.

    Args:
        count: of the features.
        sums: ``(d,)`` float64.
        squares: ``(d,)`` float64, sums of squares.
    """

    count: int
    sums: Tensor
    squares: Tensor

    @property
    def mean(self) -> Tensor:
        """``(d,)`` float32."""
        return (self.sums / self.count).float()

    @property
    def std(self) -> Tensor:
        """``(d,)`` float32; 1 where all features are equal up to rounding."""
        squares = self.squares / self.count
        variance = squares - (self.sums / self.count).square()
        return torch.where(variance > 1e-12 * squares, variance, 1).sqrt().float()

    def same(self, other: Moments) -> bool:
        """Return whether both are of the same features in the same order."""
        return self.count == other.count and torch.equal(self.sums, other.sums) and torch.equal(self.squares, other.squares)


@dataclass
class FitState:
    """How far a fit is.

    Args:
        moments: of the features.
        levels: children of each node above, ``(p,)`` int64, and centroids, ``(k, d)`` float32, of the levels that are done.
        open: the same of the level that is being fitted, None between levels.
        distortions: after each pass over the open level.
        counts: ``(k,)`` int64, the features in each leaf once all levels are done.
        distortion: mean squared distance of features from the centroid of their leaf, then.
    """

    moments: Moments
    levels: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    open: tuple[Tensor, Tensor] | None = None
    distortions: list[float] = field(default_factory=list)
    counts: Tensor | None = None
    distortion: float | None = None


def write_state(state: FitState, settings: TreeSettings, folder: Path) -> None:
    """Write the file into ``folder``, which is made if needed; it appears whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporary(folder, (STATE_NAME,))
    tensors = {"sums": state.moments.sums, "squares": state.moments.squares}
    for number, (children, centroids) in enumerate(state.levels + ([state.open] if state.open else [])):
        tensors |= {f"children.{number}": children, f"centroids.{number}": centroids}
    if state.counts is not None:
        tensors["counts"] = state.counts
    said = {
        "settings": asdict(settings),
        "count": state.moments.count,
        "levels": len(state.levels),
        "open": state.open is not None,
        "distortions": state.distortions,
        "distortion": state.distortion,
    }
    with atomic_file(folder / STATE_NAME) as file:
        file.write(save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, {SAID: json.dumps(said)}))


def read_state(settings: TreeSettings, folder: Path) -> FitState | None:
    """Return how far the fit in a folder is; None: none was begun.

    Raises:
        ValueError: the file is damaged, or of other settings.
    """
    path = folder / STATE_NAME
    if not path.is_file():
        return None
    data = path.read_bytes()
    try:
        tensors = load(data)
        said: dict[str, Any] = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"][SAID])
        levels = [(tensors[f"children.{number}"], tensors[f"centroids.{number}"]) for number in range(said["levels"] + said["open"])]
        moments = Moments(said["count"], tensors["sums"], tensors["squares"])
        other = said["settings"]
        last = levels.pop() if said["open"] else None
        state = FitState(moments, levels, last, said["distortions"], tensors.get("counts"), said["distortion"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the state of a fit: {error!r}. Delete it to begin again.") from error
    changed = [f"{name} {other.get(name)!r} instead of {value!r}" for name, value in asdict(settings).items() if other.get(name) != value]
    if changed:
        raise ValueError(f"{path} is of a fit with other settings: {', '.join(changed)}. Delete it, or choose another folder.")
    return state


def _range(least: int, most: float) -> str:
    return f"of at least {least}" if math.isinf(most) else f"from {least} to {most}"
