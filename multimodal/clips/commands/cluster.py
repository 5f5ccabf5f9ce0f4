"""``multimodal clips cluster``: fit a tree of clusters to features of clips."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from multimodal.clips.cluster import Sizes
    from multimodal.tokenizers.feature_clusters import HierarchicalKMeansTokenizer
    from multimodal.tokenizers.quantizers.hierarchical_k_means_state import Progress

SUMMARY = "fit a tree of clusters to features of clips"
DESCRIPTION = (
    "Fit hierarchical k-means to features of clips: each cluster is cut into smaller ones, level by level, and those of the last have ids."
)
EPILOG = """\
Features are read shard by shard, pass after pass, and never held in memory; .npy files (one feature a row, float16 to float64) are read
too. The folder then holds a tokenizer for `multimodal clips encode`, and clips.json: what it was made from. Clusters of few clips are not
cut into as many as --branching says, so that there may be fewer ids than branching^depth. After an interruption, run the same command
again.

VideoBERT has branching 12 and depth 4: at most 20,736 ids.

example:
  multimodal clips cluster data/films-features --branching 12 --depth 4 --to runs/clusters
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument(
        "sources", nargs="+", metavar="DIR|FILE.npy", help="shards with features of clips, or arrays; several are read in turn"
    )
    parser.add_argument("--to", type=Path, required=True, metavar="TOKENIZER", help="folder for the tokenizer; made if it is not there")
    parser.add_argument("--branching", type=int, default=12, metavar="N", help="clusters that each is cut into (default: %(default)s)")
    parser.add_argument("--depth", type=int, default=4, metavar="N", help="levels of the tree (default: %(default)s)")
    parser.add_argument(
        "--min-cluster-size", type=int, default=1, metavar="N", help="features of a cluster, at least (default: %(default)s)"
    )
    parser.add_argument("--standardize", action="store_true", help="scale each number of a feature to mean 0 and deviation 1 first")
    parser.add_argument("--max-passes", type=int, default=10, metavar="N", help="over the features, for each level (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first centroids (default: %(default)s)")
    parser.add_argument("--split", default="train", metavar="NAME", help="of the shards that is read (default: %(default)s)")
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda", help="where distances are computed (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Run it and return the exit code."""
    if options.to.exists() and not options.to.is_dir():
        raise ValueError(f"--to {options.to} is not a folder.")
    from rich.console import Console

    from multimodal.clips.cluster import fit_clusters, sizes_of
    from multimodal.clips.feature_stream import FeatureStream
    from multimodal.clips.recipe import check_device
    from multimodal.tokenizers.quantizers.hierarchical_k_means_state import TreeSettings

    check_device(options.device)
    settings = TreeSettings(
        branching=options.branching,
        depth=options.depth,
        min_cluster_size=options.min_cluster_size,
        standardize=options.standardize,
        max_passes=options.max_passes,
        seed=options.seed,
    )
    stream = FeatureStream(options.sources, options.split)
    progress = Console(stderr=True)
    with progress.status("looking at the features") as status:
        tokenizer = fit_clusters(stream, settings, options.to, options.device, lambda now: status.update(_said(now)))
        status.update("counting the features of each cluster")
        sizes = sizes_of(stream, tokenizer, options.device)
    _print(tokenizer, sizes, options, Console())
    return 0


def _said(now: Progress) -> str:
    distortion = "" if now.distortion != now.distortion else f", distortion {now.distortion:,.4g}"
    return f"level {now.level}, {now.stage}: pass {now.passes}, {now.num_clusters:,} clusters{distortion}"


def _print(tokenizer: HierarchicalKMeansTokenizer, sizes: Sizes, options: argparse.Namespace, console: Console) -> None:
    clusters, counts = tokenizer.vocab_sizes[0], sizes.counts[sizes.counts > 0].sort().values
    levels = " > ".join(f"{number:,}" for number in tokenizer.num_nodes)
    share = f", {sizes.distortion / sizes.variance:.1%} of the variance {sizes.variance:,.4g}" if sizes.variance else ""
    lines = (
        f"features: {int(counts.sum()):,} of {tokenizer.dim} numbers",
        f"clusters: {clusters:,} (at most {options.branching**options.depth:,}); level by level {levels}",
        f"features of a cluster: {int(counts[0]):,} to {int(counts[-1]):,}, median {int(counts[len(counts) // 2]):,}",
        f"perplexity: {sizes.perplexity:,.1f}",
        f"distortion: {sizes.distortion:,.4g}{share}",
        f"{options.to}: fingerprint {tokenizer.fingerprint()[:12]}",
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
