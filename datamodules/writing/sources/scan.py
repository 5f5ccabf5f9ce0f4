"""What every source ends in: samples by split, in the order in which they are written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from multimodal.datamodules.shards.keys import split_of, stable_hash
from multimodal.datamodules.writing.sources.samples import FileError, SourceSample

OnError = Literal["raise", "skip"]
_COLUMN = "column:"


@dataclass
class Scan:
    """What a source holds.

    Args:
        kind: of source.
        samples: (sample, the split that the source puts it in; None where it names none), each key once in a split.
        problems: one line for each file left out because it cannot be used.
        ignored: extension ("" for none) -> files left out because they were not asked for.
        notes: what was found out and should be shown.
    """

    kind: str
    samples: list[tuple[SourceSample, str | None]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def splits(self) -> list[str]:
        """Splits that the source itself has, in the order in which they were met."""
        return list(dict.fromkeys(split for _, split in self.samples if split is not None))

    def add(self, sample: SourceSample, split: str | None = None) -> None:
        """Note a sample."""
        self.samples.append((sample, split))

    def keep_complete(self, fields: Sequence[str]) -> None:
        """Drop the samples that lack one of the fields, and note how many.

        Raises:
            ValueError: no sample has them all.
        """
        lacking = Counter[str]()
        kept = []
        for sample, split in self.samples:
            own = {name for name, _ in sample.data_sizes or ()}
            missing = [name for name in fields if name not in own]
            lacking.update(missing)
            if not missing:
                kept.append((sample, split))
        dropped, self.samples = len(self.samples) - len(kept), kept
        counts = ", ".join(f"{name} ({count:,})" for name, count in lacking.items())
        if not kept:
            raise ValueError(f"no sample has all of the fields {', '.join(fields)}; how many of {dropped:,} lack which: {counts}.")
        if dropped:
            self.notes.append(f"left out {dropped:,} samples that lack a required field: {counts}")

    def refuse(self, problem: str, on_error: OnError) -> None:
        """Note a file that cannot be used.

        Raises:
            FileError: ``on_error`` is "raise".
        """
        if on_error == "raise":
            raise FileError(problem)
        self.problems.append(problem)


@dataclass(frozen=True)
class SplitRule:
    """How samples are spread over splits.

    Args:
        fractions: share of each split; None: the splits of the source stay.
        by: what is hashed, so that samples which share it stay together: "key"; a regular expression with one group, which is searched in
            the key; or "column:NAME", an entry of the metadata.
    """

    fractions: Mapping[str, float] | None
    by: str = "key"

    def __post_init__(self) -> None:
        if self.fractions is None and self.by != "key":
            raise ValueError("--split-by has no effect where the splits are those of the source: give the shares with --split.")


def arrange(scan: Scan, rule: SplitRule) -> dict[str, list[SourceSample]]:
    """Return split name -> its samples, in an order fixed by a hash of the keys, so that each shard mixes the classes.

    Raises:
        ValueError: two samples with one key, no split for a sample, or nothing to split by.
    """
    chosen: dict[str, list[SourceSample]] = {name: [] for name in rule.fractions or scan.splits}
    group = _grouping(rule.by)
    for sample, own in scan.samples:
        if rule.fractions is not None:
            chosen[split_of(group(sample), rule.fractions)].append(sample)
        elif own is None:
            raise ValueError(f"the source names no split for {sample.key!r}: give the shares with --split, as in train=0.9,val=0.1.")
        else:
            chosen[own].append(sample)
    for name, samples in chosen.items():
        _check_keys(name, samples)
        samples.sort(key=lambda sample: (stable_hash("order", sample.key), sample.key))
    return chosen


def _check_keys(split: str, samples: Iterable[SourceSample]) -> None:
    counts = Counter(sample.key for sample in samples)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"{len(twice)} keys are there more than once in split {split}, the first: {twice[0]!r}.")


def _grouping(by: str) -> Callable[[SourceSample], str]:
    if by == "key":
        return lambda sample: sample.key
    if by.startswith(_COLUMN):
        return _by_column(by.removeprefix(_COLUMN))
    return _by_pattern(by)


def _by_column(name: str) -> Callable[[SourceSample], str]:
    def group(sample: SourceSample) -> str:
        metadata = sample.metadata()
        if name not in metadata:
            raise ValueError(
                f"--split-by: the sample {sample.key!r} has no {name!r}; it has {', '.join(sorted(metadata)) or 'no metadata'}."
            )
        return str(metadata[name])

    return group


def _by_pattern(pattern: str) -> Callable[[SourceSample], str]:
    compiled = parse_pattern("--split-by", pattern)
    if compiled.groups != 1:
        raise ValueError(f"--split-by {pattern!r}: the expression needs one group, as in '(.+)_[0-9]+', it has {compiled.groups}.")

    def group(sample: SourceSample) -> str:
        match = compiled.search(sample.key)
        if match is None or match[1] is None:
            raise ValueError(f"--split-by {pattern!r} does not match the key {sample.key!r}.")
        return match[1]

    return group


def parse_pattern(option: str, pattern: str) -> re.Pattern[str]:
    """Return a user's regular expression.

    Raises:
        ValueError: it is none.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{option} {pattern!r} is not a regular expression: {error}.") from None
