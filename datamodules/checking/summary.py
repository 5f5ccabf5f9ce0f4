"""Tables of what a folder of shards holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from multimodal.datamodules.checking.examples import Look, look_at
from multimodal.datamodules.checking.printable import printable
from multimodal.datamodules.shards.index import ShardIndex, StoredIds
from multimodal.datamodules.shards.reader import RawSample, read_samples
from multimodal.errors import SampleError

MOST_CLASSES = 40
MOST_COMBINATIONS = 5
Side = Literal["left", "right"]


def print_index(index: ShardIndex, console: Console) -> None:
    """Print splits, fields, classes, stored ids and example keys."""
    console.print(_splits(index))
    console.print(_fields(index))
    for title, counts in (("class", index.class_counts), ("one of several labels", index.tag_counts)):
        if counts:
            console.print(_classes(title, counts))
    if index.ids:
        console.print(_ids(index))


def print_examples(index: ShardIndex, count: int, console: Console) -> list[SampleError]:
    """Print the first samples of each split and which fields go together; return what is wrong with those samples.

    Args:
        index: with its shards.
        count: samples of each split.
        console: where to print.
    """
    looks = {split: look_at(index, split, count) for split in index.splits}
    problems = [problem for look in looks.values() for example in look.examples for problem in example.problems]
    console.print(_combinations(looks))
    for split, look in looks.items():
        if look.examples:
            console.print(_examples(split, look))
    for problem in problems:
        console.print(Text(printable(f"problem: {problem}"), style="bold red"), soft_wrap=True)
    return problems


def make_table(title: str, **columns: Side) -> Table:
    """Return a table without rows; its columns, left or right, have the names of the arguments."""
    table = Table(title=Text(printable(title)) if title else None, title_justify="left", title_style="bold")
    for name, justify in columns.items():
        table.add_column(name.replace("_", " "), justify=justify, overflow="fold")
    return table


def add_row(table: Table, *cells: str) -> None:
    """Add a row whose cells come from data: nothing in them is taken for markup or for commands to the terminal."""
    table.add_row(*(Text("\n".join(map(printable, cell.split("\n")))) for cell in cells))


def _splits(index: ShardIndex) -> Table:
    table = make_table(f"{index.root}", split="left", shards="right", samples="right", size="right", examples="left")
    for name, shards in index.splits.items():
        size = sum(shard.bytes for shard in shards)
        keys = "\n".join(map(printable, _example_keys(index, name)))
        add_row(table, name, f"{len(shards):,}", f"{index.num_samples(name):,}", format_bytes(size), keys)
    return table


def _fields(index: ShardIndex) -> Table:
    table = make_table("", field="left", type="left", samples="right", share="right", size="right", mean="right")
    total = sum(index.num_samples(split) for split in index.splits)
    for name, info in sorted(index.fields.items()):
        mean = format_bytes(info.bytes / max(info.samples, 1))
        add_row(table, name, info.type, f"{info.samples:,}", _share(info.samples, total), format_bytes(info.bytes), mean)
    return table


def _share(part: int, total: int) -> str:
    """Return a share in percent; it says 100 % or 0 % only where that is exact."""
    if part in (0, total):
        return "100 %" if part and total else "0 %"
    return f"{min(max(100 * part / max(total, 1), 0.1), 99.9):.1f} %"


def _classes(title: str, counts: Mapping[str, int]) -> Table:
    columns: dict[str, Side] = {title: "left", "samples": "right"}
    table = make_table("", **columns)
    for name, count in islice(sorted(counts.items()), MOST_CLASSES):
        add_row(table, name, f"{count:,}")
    if len(counts) > MOST_CLASSES:
        add_row(table, f"... {len(counts) - MOST_CLASSES:,} more", "")
    return table


def _ids(index: ShardIndex) -> Table:
    table = make_table("", stored_ids="left", tokenizer="left", fingerprint="left", vocabulary="right", views="left")
    for name, stored in index.ids.items():
        sizes = " x ".join(f"{size:,}" for size in stored.vocab_sizes)
        add_row(table, name, stored.tokenizer_class.rpartition(".")[-1], stored.tokenizer[:12], sizes, _views(stored))
    return table


def _views(stored: StoredIds) -> str:
    if not stored.train:
        return "one, as in evaluation"
    return f"{stored.crops} for training in {', '.join(stored.train)}; one elsewhere"


def _combinations(looks: dict[str, Look]) -> Table:
    table = make_table("", fields_of_one_sample="left", samples="right", in_shard="left")
    for look in looks.values():
        for names, count in look.combinations.most_common(MOST_COMBINATIONS):
            add_row(table, " + ".join(names), f"{count:,}", look.shard)
        left = len(look.combinations) - MOST_COMBINATIONS
        if left > 0:
            add_row(table, f"... {left:,} other combinations", f"{sum(sorted(look.combinations.values())[:left]):,}", look.shard)
    return table


def _examples(split: str, look: Look) -> Table:
    table = make_table(f"the first samples of {split}", key="left", field="left", size="right", content="left")
    for example in look.examples:
        for number, (name, size, preview) in enumerate(example.fields):
            add_row(table, "" if number else example.key, name, format_bytes(size), preview)
        if not example.fields:
            add_row(table, example.key, "", "", "damaged")
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
