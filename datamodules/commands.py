"""The command ``multimodal shards``: write a folder of files into shards, and look into shards."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

if TYPE_CHECKING:
    from rich.console import Console

    from multimodal.datamodules.sources import SourceSample
    from multimodal.datamodules.writer import WriteResult

MOST_PROBLEMS = 20
WRITE_EPILOG = """\
Files with the same path up to the extension become one sample, one field each; the first sub-folder is the label:

  files/cat/001.abc        key cat/001, field abc, label cat
  files/cat/001.xyz        ... and field xyz

The same files give the same bytes. After an interruption, run the same command again: finished shards are kept.

example:
  multimodal shards write files --to data/files --split train=0.8,val=0.1,test=0.1
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line, as all errors of this command are."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``multimodal shards``."""
    parser = _Parser(prog="multimodal shards", description="Write and inspect tar shards.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{write,inspect}")
    write = commands.add_parser(
        "write",
        help="write a folder of files into shards",
        description="Write a folder of files into tar shards with an index.",
        epilog=WRITE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    write.add_argument("source", metavar="SRC", help="folder of files; sub-folders are the classes")
    write.add_argument("--to", required=True, metavar="DIR", help="folder for the shards; made if it is not there")
    write.add_argument("--extensions", metavar="A,B", help="files to take (default: every file with an extension that is not hidden)")
    write.add_argument(
        "--split",
        default="train=0.9,val=0.1",
        metavar="NAME=SHARE,...",
        help="share of each split, by a hash of the key; or 'folders' if SRC holds only train/, val/, test/ (default: %(default)s)",
    )
    write.add_argument("--samples-per-shard", type=int, default=1000, metavar="N", help="samples of a shard (default: %(default)s)")
    write.add_argument(
        "--on-error",
        choices=["raise", "skip"],
        default="raise",
        help="stop at an empty or unreadable file, or leave it out and list it (default: %(default)s)",
    )
    inspect = commands.add_parser("inspect", help="show what shards hold", description="Show what shards hold.", allow_abbrev=False)
    inspect.add_argument("folder", metavar="DIR", help="folder with an index.json")
    inspect.add_argument("--verify", action="store_true", help="read every shard and compare it with its hash")
    return parser


def main(arguments: list[str]) -> int:
    """Run ``multimodal shards`` and return its exit code: 0, 2 for an error of the user or the data, 130 when interrupted."""
    try:
        options = build_parser().parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        return _write(options) if options.command == "write" else _inspect(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on.", file=sys.stderr)
        return 130


def _write(options: argparse.Namespace) -> int:
    from rich.console import Console

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
    with _Progress(scanned.splits, console) as progress:
        result = write_shards(scanned.splits, target, options.samples_per_shard, options.on_error, settings, progress.advance)
    _report(result, scanned.problems, dict(scanned.ignored), Console())
    return 0


class _Progress:
    """A bar with rate and remaining time."""

    def __init__(self, splits: dict[str, list[SourceSample]], console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("writing"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,  # in a log the summary says it all
        )
        self.task = self.bar.add_task("", total=sum(map(len, splits.values())), rate="")

    def __enter__(self) -> _Progress:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def advance(self, samples: int, size: int) -> None:
        speed = self.bar.tasks[0].speed
        self.bar.update(self.task, advance=samples, rate="" if speed is None else f"{speed:,.0f} samples/s")


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


def _inspect(options: argparse.Namespace) -> int:
    from rich.console import Console

    from multimodal.datamodules.index import ShardIndex
    from multimodal.datamodules.summary import print_index
    from multimodal.datamodules.writer import file_sha256

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
