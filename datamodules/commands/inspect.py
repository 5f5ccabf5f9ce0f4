"""``multimodal shards inspect``: show what shards hold."""

from __future__ import annotations

import argparse

SUMMARY = "show what shards hold"
DESCRIPTION = "Show what shards hold, with examples."
EPILOG = """\
Shown is what the index says, and the first samples of each split. Samples that lack a field which the index says all have, have one more,
or hold something else than the name says are named; `multimodal shards verify` looks at all samples.

exit code: 0; 1 where a sample shown has a problem; 2 where the folder cannot be read.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("folder", metavar="DIR", help="folder with an index.json")
    parser.add_argument("--examples", type=int, default=2, metavar="N", help="samples to show of each split (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Run it and return the exit code."""
    from rich.console import Console

    from multimodal.datamodules.checking.summary import print_examples, print_index
    from multimodal.datamodules.shards.index import ShardIndex

    if options.examples < 0:
        raise ValueError(f"--examples must be at least 0, got {options.examples}.")
    index = ShardIndex.load(options.folder)
    console = Console()
    print_index(index, console)
    problems = print_examples(index, options.examples, console)
    return 1 if problems else 0
