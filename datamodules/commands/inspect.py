"""``multimodal shards inspect``: show what shards hold."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command to those of ``multimodal shards``."""
    parser: argparse.ArgumentParser = commands.add_parser("inspect", help="show what shards hold", description="Show what shards hold.")
    parser.add_argument("folder", metavar="DIR", help="folder with an index.json")
    parser.add_argument("--verify", action="store_true", help="read every shard and compare it with its hash")
    return parser


def run(options: argparse.Namespace) -> int:
    """Run it and return the exit code."""
    from rich.console import Console

    from multimodal.datamodules.index import ShardIndex
    from multimodal.datamodules.shard_file import file_sha256
    from multimodal.datamodules.summary import print_index

    index = ShardIndex.load(options.folder)
    console = Console()
    print_index(index, console)
    if options.verify:
        shards = [shard for shards in index.splits.values() for shard in shards]
        damaged = [shard.path for shard in shards if file_sha256(index.root / shard.path) != shard.sha256]
        if damaged:
            raise ValueError(f"{len(damaged)} of {len(shards)} shards are not what the index says: {', '.join(damaged)}.")
        console.print(f"all {len(shards):,} shards are as they were written")
    return 0
