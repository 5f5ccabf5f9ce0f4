"""``multimodal shards write``: write samples into shards."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from multimodal.datamodules.commands.workers import WORTH_SEVERAL_BYTES
from multimodal.datamodules.commands.write_options import EPILOG, add_options, source_rules, split_rule, write_options

if TYPE_CHECKING:
    from rich.console import Console

    from multimodal.datamodules.jobs.folder_run import WriteResult
    from multimodal.datamodules.shards.index import ShardIndex
    from multimodal.datamodules.writing.sources import Kind, Scan, SourceSample
    from multimodal.datamodules.writing.writer import WriteOptions

__all__ = ["DESCRIPTION", "EPILOG", "SUMMARY", "add_options", "run"]

SUMMARY = "write a folder, a manifest, a Hugging Face data set or tars into shards"
DESCRIPTION = "Write samples into tar shards with an index."
MOST_PROBLEMS = 20


def run(options: argparse.Namespace) -> int:
    """Run it and return the exit code."""
    from rich.console import Console

    from multimodal.datamodules.writing.sources import arrange, recognise, scan_source
    from multimodal.datamodules.writing.write_plan import plan_identity

    target = Path(options.to)
    rules, written = source_rules(options), write_options(options)
    screen, console = Console(stderr=True), Console()
    kind: Kind = options.kind or recognise(options.source)
    _check_apart(options.source, kind, target)
    with screen.status(f"looking at {options.source[0]}"):
        scan = scan_source(options.source, kind, rules)
        splits = arrange(scan, split_rule(options, scan))
    plan = plan_identity(splits, written.settings)
    for note in scan.notes:
        console.print(f"{kind}: {note}", markup=False, highlight=False)
    index = _already_written(target, plan, splits, options.overwrite)
    if index is not None:
        _report_index(index, console)
        console.print("already written: nothing has changed since")
        return 0
    duplicates: list[str] = []
    if options.deduplicate:
        splits, duplicates = _deduplicate(splits, written, options.workers, screen)
    result = _write(splits, target, written, plan, options.workers)
    _report(result, scan, duplicates, console)
    return 0


def _check_apart(source: Sequence[str], kind: Kind, target: Path) -> None:
    """Refuse a target that is a file, or whose shards would be read as files of their own source, or replace it."""
    place = target.resolve()
    for path in (Path(name).resolve() for name in source if kind != "manifest"):
        if place.is_relative_to(path) or (kind == "tars" and not path.is_dir() and place == path.parent):
            raise ValueError(f"--to {target} lies in the source folder {path}: the shards would be read as its files.")
    if target.exists() and not target.is_dir():
        raise ValueError(f"--to {target} is not a folder.")


def _already_written(target: Path, plan: str, splits: dict[str, list[SourceSample]], overwrite: bool) -> ShardIndex | None:
    """Return the index if all is there and no file has changed since.

    Raises:
        ValueError: there are shards of other files or settings, and they are not to be replaced.
    """
    from multimodal.datamodules.shards.index import FILE_NAME, ShardIndex
    from multimodal.datamodules.writing.writer import newest_change

    path = target / FILE_NAME
    if overwrite or not path.exists():
        return None
    try:
        index = ShardIndex.load(target)
    except ValueError as error:
        raise ValueError(f"{error} Write into {target} anew with --overwrite.") from None
    if index.writer.get("plan") == plan and newest_change(splits) < path.stat().st_mtime_ns:
        return index
    reason = "shards that were written from other files or with other settings"
    raise ValueError(f"{target} holds {reason}: give another --to, or replace them with --overwrite.")


def _deduplicate(
    splits: dict[str, list[SourceSample]], options: WriteOptions, asked: int | None, screen: Console
) -> tuple[dict[str, list[SourceSample]], list[str]]:
    from multimodal.datamodules.commands.progress import ProgressBar
    from multimodal.datamodules.writing.deduplication import candidates, deduplicate

    chosen = candidates(splits)
    workers = _num_workers(asked, len(chosen), chosen)
    with ProgressBar("comparing", len(chosen), screen) as progress:
        return deduplicate(splits, chosen, workers, options.engine, progress.advance)


def _write(splits: dict[str, list[SourceSample]], target: Path, options: WriteOptions, plan: str, asked: int | None) -> WriteResult:
    from dataclasses import replace

    from rich.console import Console

    from multimodal.datamodules.commands.progress import ProgressBar
    from multimodal.datamodules.writing.write_plan import plan_shards
    from multimodal.datamodules.writing.writer import write_shards

    shards = plan_shards(splits, options.limits, options.on_error)
    own = [shard for place, shard in enumerate(shards) if options.part.takes(place)]
    samples = [sample for shard in own for sample in shard.samples]
    options = replace(options, num_workers=_num_workers(asked, len(own), samples))
    with ProgressBar("writing", len(samples), Console(stderr=True)) as progress:
        return write_shards(splits, target, options, plan, progress.advance)


def _num_workers(asked: int | None, num_jobs: int, samples: Sequence[SourceSample]) -> int:
    from multimodal.datamodules.jobs.run_jobs import available_cpus

    if asked is None:
        little = num_jobs < 2 or sum(sample.size for sample in samples) < WORTH_SEVERAL_BYTES
        return 0 if little else min(available_cpus(), num_jobs)
    return min(asked, num_jobs)


def _report(result: WriteResult, scan: Scan, duplicates: list[str], console: Console) -> None:
    if result.index is not None:
        _report_index(result.index, console)
    if scan.ignored:
        kinds = [f"{count:,} files {'.' + name if name else 'without extension'}" for name, count in scan.ignored.items()]
        console.print(f"not taken: {', '.join(kinds)}", markup=False)
    if result.kept:
        console.print(f"kept {result.kept:,} shards of the interrupted run")
    _list(f"left out {len(duplicates):,} duplicates:", duplicates, console)
    problems = scan.problems + result.problems
    _list(f"left out {len(problems):,} files:", problems, console)
    if result.missing:
        parts = ", ".join(map(str, result.missing))
        console.print(f"this part is written; the index follows when all parts are. Missing: {parts}", style="bold")


def _report_index(index: ShardIndex, console: Console) -> None:
    from multimodal.datamodules.checking.summary import print_index

    print_index(index, console)
    empty = [name for name, shards in index.splits.items() if not shards]
    if empty:
        console.print(f"no samples fell into: {', '.join(empty)} (too few samples for such a share)", style="bold red")


def _list(title: str, lines: list[str], console: Console) -> None:
    if not lines:
        return
    console.print(title, style="bold red", markup=False)
    for line in lines[:MOST_PROBLEMS]:
        console.print(f"  {line}", markup=False, highlight=False)
    if len(lines) > MOST_PROBLEMS:
        console.print(f"  ... {len(lines) - MOST_PROBLEMS:,} more")
