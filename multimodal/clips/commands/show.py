"""``multimodal clips show``: look at clusters of clips."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multimodal.clips.examples import ClusterUse

SUMMARY = "write a page with pictures of the clips nearest to the centroids of clusters"
DESCRIPTION = (
    "Write one self-contained HTML page about clusters of clips: how many are used, and what the clips nearest to each centroid show."
)
EPILOG = """\
Each clip is shown by the picture in its middle. It takes shards of `multimodal clips encode --keep-features`, and those with the films.

example:
  multimodal clips show data/films-ids --films data/films --tokenizer runs/clusters --to clusters.html
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("source", metavar="DIR2", help="shards with ids and features of clips")
    parser.add_argument("--films", required=True, metavar="SHARDS", help="shards of the films that the clips were cut from")
    parser.add_argument("--tokenizer", required=True, metavar="TOKENIZER", help="folder that `multimodal clips cluster` wrote")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE.html", help="the page")
    parser.add_argument("--clusters", type=int, nargs="+", default=[], metavar="ID", help="which to show (default: the largest)")
    parser.add_argument("--largest", type=int, default=24, metavar="N", help="how many, where none is named (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=6, metavar="N", help="of a cluster, at most (default: %(default)s)")
    parser.add_argument("--height", type=int, default=120, metavar="PIXELS", help="of a picture (default: %(default)s)")
    parser.add_argument("--split", default="train", metavar="NAME", help="(default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Run it and return the exit code."""
    for name in ("largest", "clips", "height"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(options, name)}.")
    if options.to.is_dir():
        raise ValueError(f"--to {options.to} is a folder: name the page.")
    from rich.console import Console

    from multimodal.atomic import atomic_file
    from multimodal.clips.encode import cached_tokenizer
    from multimodal.clips.examples import pictures_of_examples, use_of_clusters
    from multimodal.clips.feature_stream import source_of_clips
    from multimodal.clips.page import clusters_page
    from multimodal.clips.recipe import SAID, windows_of
    from multimodal.datamodules.commands.progress import ProgressBar
    from multimodal.datamodules.streaming.locations import open_source

    source, films = source_of_clips(options.source), open_source(options.films)
    if not source.splits.get(options.split):
        raise ValueError(f"{options.source} has no split {options.split!r}; splits there: {', '.join(source.splits)}.")
    tokenizer, windows = cached_tokenizer(options.tokenizer, "cpu"), windows_of(source.writer[SAID])
    use = use_of_clusters(source, options.split, tokenizer, options.clips)
    clusters = _chosen(options, use)
    examples = [example for cluster in clusters for example in use.nearest.get(cluster, [])]
    count = len({(example.shard, example.position) for example in examples})
    with ProgressBar("finding pictures", count, Console(stderr=True)) as progress:
        pictures = pictures_of_examples(examples, films, windows, options.height, progress.advance)
    options.to.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(options.to) as file:
        file.write(clusters_page(f"Clusters of clips: {options.split}", use, clusters, pictures).encode())
    used = int((use.counts > 0).sum())
    said = f"{int(use.counts.sum()):,} clips in {used:,} of {len(use.counts):,} clusters, {len(clusters):,} of them shown: {options.to}"
    Console().print(said, markup=False, highlight=False, soft_wrap=True)
    return 0


def _chosen(options: argparse.Namespace, use: ClusterUse) -> list[int]:
    if not options.clusters:
        return use.largest(options.largest)
    if wrong := [cluster for cluster in options.clusters if not 0 <= cluster < len(use.counts)]:
        raise ValueError(f"--clusters: there is no cluster {wrong[0]}; they are 0 to {len(use.counts) - 1}.")
    return list(options.clusters)
