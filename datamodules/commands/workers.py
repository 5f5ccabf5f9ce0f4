"""The options that say who does the work, and in how many processes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from multimodal.datamodules.jobs.run_jobs import available_cpus
from multimodal.datamodules.shards.index import ShardInfo

if TYPE_CHECKING:
    from multimodal.datamodules.tokenizing.tokenize import RunOptions

WORTH_SEVERAL_BYTES = 100_000_000


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers`` to a command that reads shards."""
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each processor; 0: none besides this one)")


def add_run_options(group: argparse._ArgumentGroup, alone: str) -> None:
    """Add ``--workers``, ``--part`` and ``--engine`` to a command that makes shards.

    Args:
        group: of its options.
        alone: when this process does all by default, for the help.
    """
    default = f"default: one a processor, at most one a shard; {alone}"
    group.add_argument("--workers", type=int, metavar="N", help=f"processes; 0: this one ({default})")
    group.add_argument(
        "--part", default="1/1", metavar="I/N", help="make every N-th shard only, from the I-th on; the last part writes the index"
    )
    group.add_argument("--engine", choices=["local", "ray"], default="local", help="where processes run (default: %(default)s)")


def num_workers(asked: int | None, shards: Sequence[ShardInfo], decodes: bool) -> int:
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
        little = sum(shard.bytes for shard in shards) < WORTH_SEVERAL_BYTES
        return min(int(decodes) if little else available_cpus(), len(shards))
    return min(asked, len(shards))


def who_works(options: argparse.Namespace, shards: Sequence[ShardInfo], decodes: bool) -> tuple[RunOptions, int]:
    """Return who makes shards, as the options of a command say, and how many samples this run goes through.

    Args:
        options: those of ``add_run_options``, ``device`` and ``overwrite``; with a device that is no CPU this process does all by default.
        shards: to read.
        decodes: see ``num_workers``.

    Raises:
        ValueError: a negative number of processes, or a part that there is not.
    """
    from multimodal.datamodules.jobs.parts import Part
    from multimodal.datamodules.tokenizing.tokenize import RunOptions

    workers = 0 if options.workers is None and options.device != "cpu" else num_workers(options.workers, shards, decodes)
    how = RunOptions(workers, options.engine, Part.parse(options.part), options.overwrite)
    return how, sum(shard.samples for place, shard in enumerate(shards) if how.part.takes(place))
