"""``multimodal shards write``: write a folder of files into shards."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

    from multimodal.datamodules.writer import WriteResult

MOST_PROBLEMS = 20
EPILOG = """\
Files with the same path up to the extension become one sample, one field each; the first sub-folder is the label:

  files/cat/001.abc        key cat/001, field abc, label cat
  files/cat/001.xyz        ... and field xyz

The same files give the same bytes. After an interruption, run the same command again: finished shards are kept.

example:
  multimodal shards write files --to data/files --split train=0.8,val=0.1,test=0.1
"""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command to those of ``multimodal shards``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "write",
        help="write a folder of files into shards",
        description="Write a folder of files into tar shards with an index.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SRC", help="folder of files; sub-folders are the classes")
    parser.add_argument("--to", required=True, metavar="DIR", help="folder for the shards; made if it is not there")
    parser.add_argument("--extensions", metavar="A,B", help="files to take (default: every file with an extension that is not hidden)")
    parser.add_argument(
        "--split",
        default="train=0.9,val=0.1",
        metavar="NAME=SHARE,...",
        help="share of each split, by a hash of the key; or 'folders' if SRC holds only train/, val/, test/ (default: %(default)s)",
    )
    parser.add_argument("--samples-per-shard", type=int, default=1000, metavar="N", help="samples of a shard (default: %(default)s)")
    parser.add_argument(
        "--on-error",
        choices=["raise", "skip"],
        default="raise",
        help="stop at an empty or unreadable file, or leave it out and list it (default: %(default)s)",
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Run it and return the exit code."""
    from rich.console import Console

    from multimodal.datamodules.commands.progress import ProgressBar
    from multimodal.datamodules.keys import parse_fractions
    from multimodal.datamodules.sources import scan_folder
    from multimodal.datamodules.writer import write_shards

    source, target = Path(options.source), Path(options.to)
    if target.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"--to {target} lies in the source folder {source}: the shards would be read as its files.")
    if target.exists() and not target.is_dir():
        raise ValueError(f"--to {target} is not a folder.")
    if options.samples_per_shard < 1:
        raise ValueError(f"--samples-per-shard must be at least 1, got {options.samples_per_shard}.")
    split: dict[str, float] | Literal["folders"] = "folders" if options.split == "folders" else parse_fractions(options.split)
    extensions = None if options.extensions is None else [name.strip() for name in options.extensions.split(",")]
    console = Console(stderr=True)
    with console.status(f"looking at {source}"):
        scanned = scan_folder(source, split, extensions, options.on_error)
    settings = {"split": options.split, "extensions": extensions}
    with ProgressBar("writing", sum(map(len, scanned.splits.values())), console) as progress:
        result = write_shards(scanned.splits, target, options.samples_per_shard, options.on_error, settings, progress.advance)
    _report(result, scanned.problems, dict(scanned.ignored), Console())
    return 0


def _report(result: WriteResult, scan_problems: list[str], ignored: dict[str, int], console: Console) -> None:
    from multimodal.datamodules.summary import print_index

    print_index(result.index, console)
    problems = scan_problems + result.problems
    if ignored:
        kinds = [f"{count:,} files {'.' + name if name else 'without extension'}" for name, count in ignored.items()]
        console.print(f"not taken: {', '.join(kinds)}", markup=False)
    if result.kept:
        console.print(f"kept {result.kept:,} shards of the interrupted run")
    if problems:
        console.print(f"left out {len(problems):,} files:", style="bold red")
        for problem in problems[:MOST_PROBLEMS]:
            console.print(f"  {problem}", markup=False, highlight=False)
        if len(problems) > MOST_PROBLEMS:
            console.print(f"  ... {len(problems) - MOST_PROBLEMS:,} more")
    empty = [name for name, shards in result.index.splits.items() if not shards]
    if empty:
        console.print(f"no samples fell into: {', '.join(empty)} (too few samples for such a share)", style="bold red")
