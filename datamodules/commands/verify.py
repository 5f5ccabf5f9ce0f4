"""``multimodal shards verify``: check shards against their index."""

from __future__ import annotations

import argparse
import csv
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from multimodal.datamodules.commands.workers import add_workers, num_workers

if TYPE_CHECKING:
    from rich.console import Console

    from multimodal.datamodules.checking.verify import Tell, Verification
    from multimodal.errors import SampleError

MOST_PROBLEMS = 20
SUMMARY = "check shards against their index"
DESCRIPTION = "Check every shard of a folder against its index."
EPILOG = """\
Checked are, in one read of each shard: size and sha256; headers, number of samples, keys that are unsafe or there twice (in whatever
shard), links and devices, fields that are there twice, missing, or unknown to the index; the counts of the index.

--deep also opens every field: JSON parses, arrays load without objects, stored ids lie in their vocabularies, everything else is
decoded with the default settings of what reads it. Fields that nothing reads are counted as not checked.

exit code: 0 all is well, 1 problems, 2 the check could not be made.

example:
  multimodal shards verify data/files --deep --csv problems.csv
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("folder", metavar="DIR", help="folder with an index.json")
    parser.add_argument("--deep", action="store_true", help="also decode every field")
    add_workers(parser)
    parser.add_argument("--csv", metavar="FILE", help="write all problems there: shard, key, field, reason")


def run(options: argparse.Namespace) -> int:
    """Run it and return the exit code."""
    from rich.console import Console

    from multimodal.datamodules.checking.verify import open_index, verify_shards
    from multimodal.datamodules.commands.progress import ProgressBar

    index = open_index(options.folder)
    shards = [shard for shards in index.splits.values() for shard in shards]
    workers = num_workers(options.workers, shards, options.deep)
    samples = sum(shard.samples for shard in shards)
    first: list[SampleError] = []
    started = time.perf_counter()
    with _listing(options.csv, first) as tell, ProgressBar("checking", samples, Console(stderr=True)) as progress:
        result = verify_shards(index, tell, options.deep, workers, progress.advance)
    size = sum(shard.bytes for shard in shards)
    _report(result, first, options.csv, size, time.perf_counter() - started, Console())
    return 1 if result.problems else 0


@contextmanager
def _listing(path: str | None, first: list[SampleError]) -> Iterator[Tell]:
    """Give what takes the problems: the first go to ``first``, all to the file, which appears when the check is complete."""
    from multimodal.atomic import atomic_file

    def keep(problem: SampleError) -> None:
        if len(first) < MOST_PROBLEMS:
            first.append(problem)

    if path is None:
        yield keep
        return
    with atomic_file(Path(path)) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
        rows = csv.writer(text)
        rows.writerow(["shard", "key", "field", "reason"])

        def write(problem: SampleError) -> None:
            keep(problem)
            rows.writerow([problem.shard, problem.key, problem.field, problem.reason])

        yield write
        text.detach()


def _report(result: Verification, first: list[SampleError], listing: str | None, size: int, seconds: float, console: Console) -> None:
    from multimodal.datamodules.checking.printable import printable
    from multimodal.datamodules.checking.summary import add_row, format_bytes, make_table

    speed = f"{format_bytes(size)} in {seconds:.1f} s, {format_bytes(size / seconds)}/s"
    console.print(f"{result.shards:,} shards, {result.contents.samples:,} samples, {speed}", highlight=False)
    for (field, reason), count in sorted(result.unchecked.items()):
        console.print(f"not decoded: {count:,} fields {printable(field)}: {printable(reason)}", markup=False, highlight=False)
    if not result.problems:
        console.print("no problems")
        return
    table = make_table("", shard="left", key="left", field="left", reason="left")
    for problem in first:
        add_row(table, problem.shard, problem.key, problem.field, problem.reason)
    console.print(table)
    if result.problems > len(first):
        hint = f"all are in {listing}" if listing else "--csv FILE lists all"
        console.print(f"... {result.problems - len(first):,} more; {hint}", markup=False, highlight=False)
    if result.more:
        console.print(f"{result.more:,} of them were counted only: no more than 100,000 of a shard are listed")
    if not result.compared:
        console.print("the counts of the index were not compared, since not every shard could be read to its end")
    console.print(f"{result.problems:,} problems in {result.bad_shards:,} of {result.shards:,} shards", style="bold red")
