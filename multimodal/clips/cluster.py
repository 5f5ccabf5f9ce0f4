"""Features of clips -> the tree of clusters that numbers them, saved as a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from multimodal.atomic import atomic_file
from multimodal.clips.feature_stream import FeatureStream
from multimodal.datamodules.jobs.folder_lock import folder_lock
from multimodal.tokenizers.feature_clusters import HierarchicalKMeansTokenizer, fit_tree
from multimodal.tokenizers.pretrained import CONFIG_NAME, load_tokenizer
from multimodal.tokenizers.quantizers.hierarchical_k_means_state import STATE_NAME, Progress, TreeSettings

FACTS = "clips.json"
"""What the clusters were made from, beside the tokenizer."""


@dataclass(frozen=True)
class Sizes:
    """How features spread over clusters.

    Args:
        counts: ``(clusters,)`` int64, features of each.
        distortion: mean squared distance of a feature from the centroid of its cluster.
        variance: mean squared distance of a feature from the mean of all.
    """

    counts: torch.Tensor
    distortion: float
    variance: float

    @property
    def used(self) -> int:
        """Clusters with at least one feature."""
        return int((self.counts > 0).sum())

    @property
    def perplexity(self) -> float:
        """Number of clusters of equal size that would spread the features as much."""
        shares = self.counts[self.counts > 0].double() / self.counts.sum()
        return float((-(shares * shares.log()).sum()).exp())


def fit_clusters(
    stream: FeatureStream, settings: TreeSettings, folder: Path, device: str = "cpu", listener: Callable[[Progress], None] | None = None
) -> HierarchicalKMeansTokenizer:
    """Fit the tree and save it; a fit that was interrupted goes on, and one that is there already is returned.

    Args:
        stream: of features.
        settings: of the tree.
        folder: for the tokenizer, and until it is done for the state of the fit.
        device: where distances are computed.
        listener: told of the progress after each pass over the features.

    Raises:
        ValueError: the folder holds another tokenizer or the fit of another one, or the features cannot be used.
    """
    said = {"extractor": stream.extractor, "split": stream.split, "settings": asdict(settings)}
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder):
        if (folder / CONFIG_NAME).exists():
            if facts_of(folder) != json.loads(json.dumps(said)):
                raise ValueError(f"{folder} holds another tokenizer: give another --to, or delete the folder.")
            saved = load_tokenizer(str(folder))
            assert isinstance(saved, HierarchicalKMeansTokenizer)
            return saved
        tokenizer = fit_tree(stream, settings, folder, listener, device)
        with atomic_file(folder / FACTS) as file:
            file.write((json.dumps(said, indent=2) + "\n").encode())
        tokenizer.save_pretrained(folder)
        (folder / STATE_NAME).unlink(missing_ok=True)
    return tokenizer


def facts_of(folder: Path) -> dict[str, object]:
    """Return what the clusters in a folder were made from; empty where the folder does not say it."""
    try:
        found = json.loads((folder / FACTS).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@torch.no_grad()
def sizes_of(stream: FeatureStream, tokenizer: HierarchicalKMeansTokenizer, device: str = "cpu") -> Sizes:
    """Return how the features of a stream spread over the clusters, in one pass.

    Raises:
        ValueError: there are no features.
    """
    tokenizer = tokenizer.to(device)
    counts = torch.zeros(tokenizer.vocab_sizes[0], dtype=torch.int64)
    squared, total = 0.0, 0
    sums, squares = torch.zeros(tokenizer.dim, dtype=torch.float64), 0.0
    for features in stream:
        x = features.to(device).float()
        ids = tokenizer.encode(x)
        counts += torch.bincount(ids.cpu(), minlength=len(counts))
        squared += float((x - tokenizer.decode(ids)).double().square().sum())
        sums, squares, total = sums + x.double().sum(0).cpu(), squares + float(x.double().square().sum()), total + len(x)
    if not total:
        raise ValueError("there are no features.")
    variance = max(0.0, squares / total - float((sums / total).square().sum()))
    return Sizes(counts, squared / total, variance)
