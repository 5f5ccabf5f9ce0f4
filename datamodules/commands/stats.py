"""``multimodal shards stats``: measure what is in shards."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from multimodal.datamodules.commands.workers import add_workers, num_workers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from multimodal.datamodules.checking.statistics import Statistics

MOST_NAMES = 6
SUMMARY = "measure what is in shards"
DESCRIPTION = "Measure the files in shards: sizes, lengths, rates, mean and spread of their values."
EPILOG = """\
Every file is decoded by what reads it, with its default settings; files that cannot be decoded are counted and named. Mean and std are
those of all values of all files, in the units in which a config names them.

examples:
  multimodal shards stats data/files
  multimodal shards stats data/files --limit 10000 --to statistics.yaml
  multimodal shards stats data/files --fields png,jpg --part PACKAGE.CLASS --to part.yaml
The last writes a part of a config: class_path and init_args with mean and std, and the rest as comments. A config names it by its path.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("folder", metavar="DIR", help="folder with an index.json")
    parser.add_argument("--split", default="train", metavar="NAME", help="split to measure (default: %(default)s)")
    parser.add_argument("--fields", metavar="A,B", help="fields to measure (default: all)")
    parser.add_argument("--limit", type=int, metavar="N", help="read about N samples, an equal share of each shard (default: all)")
    parser.add_argument("--to", metavar="FILE.yaml", help="write the figures there")
    parser.add_argument("--part", metavar="CLASS_PATH", help="make the file a part of a config: this class with its mean and std")
    add_workers(parser)


def run(options: argparse.Namespace) -> int:
    """Run it and return the exit code."""
    from rich.console import Console

    from multimodal.datamodules.checking.statistics import measure_shards, num_to_read
    from multimodal.datamodules.checking.statistics_file import write_statistics
    from multimodal.datamodules.commands.progress import ProgressBar
    from multimodal.datamodules.shards.index import ShardIndex

    if options.part and not options.to:
        raise ValueError("--part says what to write: it needs --to FILE.yaml.")
    index = ShardIndex.load(options.folder)
    fields = None if options.fields is None else [name.strip() for name in options.fields.split(",")]
    workers = num_workers(options.workers, list(index.shards(options.split)), decodes=True)
    with ProgressBar("measuring", num_to_read(index, options.split, options.limit), Console(stderr=True)) as progress:
        statistics = measure_shards(index, options.split, options.limit, fields, workers, progress.advance)
    if options.to:
        write_statistics(statistics, options.to, options.part)
    _report(statistics, Console())
    return 0


def _report(statistics: Mapping[str, Statistics], console: Console) -> None:
    from multimodal.datamodules.checking.printable import printable
    from multimodal.datamodules.checking.summary import add_row, make_table

    table = make_table("", read_by="left", measure="left")
    for column in ("min", "5 %", "median", "95 %", "max", "mean"):
        table.add_column(column, justify="right")
    for name, found in statistics.items():
        heading = f"{name}: {_some(sorted(found.fields))}" if found.fields and {name} != found.fields else name
        for number, measure in enumerate(found.values):
            add_row(table, "" if number else heading, measure, *map(_figure, found.quantiles(measure).values()))
    console.print(table)
    _report_moments(statistics, console)
    for name, found in statistics.items():
        if found.bad:
            console.print(f"{found.bad:,} files of {name} could not be measured, among them:", style="bold red")
        for problem in found.problems:
            console.print(printable(str(problem)), markup=False, highlight=False, soft_wrap=True)


def _report_moments(statistics: Mapping[str, Statistics], console: Console) -> None:
    from multimodal.datamodules.checking.statistics import mean_and_spread
    from multimodal.datamodules.checking.statistics_file import label
    from multimodal.datamodules.checking.summary import add_row, make_table

    table = make_table("", read_by="left", values="left", number="right", mean="left", std="left")
    for name, found in statistics.items():
        for measure, kinds in found.moments.items():
            for moments in kinds.values():
                over_all = mean_and_spread(moments)
                shown = [", ".join(f"{value:.4f}" for value in values) for values in (over_all.mean, over_all.std)]
                add_row(table, name, label(measure, len(kinds), len(moments.sums)), f"{over_all.num_values:,}", *shown)
    if table.row_count:
        console.print(table)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    return shown if len(names) <= MOST_NAMES else f"{shown} and {len(names) - MOST_NAMES} more"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.4g}"
