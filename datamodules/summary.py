"""Tables of what a folder of shards holds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Literal

from rich.console import Console
from rich.table import Table

from multimodal.datamodules.index import ShardIndex
from multimodal.datamodules.reader import RawSample, read_samples

MOST_CLASSES = 40


def print_index(index: ShardIndex, console: Console) -> None:
    """Print splits, fields, classes and example keys."""
    console.print(_splits(index))
    console.print(_fields(index))
    if index.class_counts:
        console.print(_classes(index))


def _splits(index: ShardIndex) -> Table:
    table = _table(f"{index.root}", split="left", shards="right", samples="right", size="right", examples="left")
    for name, shards in index.splits.items():
        size = sum(shard.bytes for shard in shards)
        table.add_row(name, f"{len(shards):,}", f"{index.num_samples(name):,}", format_bytes(size), "\n".join(_example_keys(index, name)))
    return table


def _fields(index: ShardIndex) -> Table:
    table = _table("", field="left", type="left", samples="right", size="right", mean="right")
    for name, info in sorted(index.fields.items()):
        table.add_row(name, info.type, f"{info.samples:,}", format_bytes(info.bytes), format_bytes(info.bytes / info.samples))
    return table


def _classes(index: ShardIndex) -> Table:
    columns: dict[str, Literal["left", "right"]] = {"class": "left", "samples": "right"}
    table = _table("", **columns)
    for name, count in islice(sorted(index.class_counts.items()), MOST_CLASSES):
        table.add_row(name, f"{count:,}")
    if len(index.class_counts) > MOST_CLASSES:
        table.add_row(f"... {len(index.class_counts) - MOST_CLASSES:,} more", "")
    return table


def _table(title: str, **columns: Literal["left", "right"]) -> Table:
    table = Table(title=title or None, title_justify="left", title_style="bold")
    for name, justify in columns.items():
        table.add_column(name, justify=justify, overflow="fold")
    return table


def _example_keys(index: ShardIndex, split: str) -> Iterator[str]:
    for shard in index.shards(split)[:1]:
        for sample in read_samples(index.root / shard.path, range(min(2, shard.samples)), shard.samples, wanted=()):
            yield sample.key if isinstance(sample, RawSample) else f"damaged: {sample.reason}"


def format_bytes(size: float) -> str:
    """Return a size as a person reads it, in units of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if size >= 100 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
