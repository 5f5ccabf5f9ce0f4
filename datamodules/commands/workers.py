"""The option ``--workers`` of commands that read shards."""

from __future__ import annotations

import argparse

from multimodal.datamodules.jobs.run_jobs import available_cpus
from multimodal.datamodules.shards.index import ShardInfo

_WORTH_SEVERAL = 100_000_000


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each processor; 0: none besides this one)")


def num_workers(asked: int | None, shards: list[ShardInfo], decodes: bool) -> int:
    """Return the number of processes for reading the shards.

    Args:
        asked: by the user; None: no more than there are processors or shards, and for a little reading no more than it takes.
        shards: to read.
        decodes: whether fields are decoded: a process of its own then keeps a decoder that crashes from ending the command.

    Raises:
        ValueError: a negative number.
    """
    if asked is not None and asked < 0:
        raise ValueError(f"--workers must be at least 0, got {asked}.")
    if asked is None:
        little = sum(shard.bytes for shard in shards) < _WORTH_SEVERAL
        return min(int(decodes) if little else available_cpus(), len(shards))
    return min(asked, len(shards))
