"""Check one shard in one sequential read: its hash, its structure and, if asked for, the contents of its fields."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tarfile
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from multimodal.datamodules.checking.field_check import FieldCheck
from multimodal.datamodules.jobs.run_jobs import advance
from multimodal.datamodules.shards.contents import LABEL, METADATA, Contents, found_classes, metadata_of, tags_of
from multimodal.datamodules.shards.index import ShardInfo, StoredIds
from multimodal.datamodules.shards.keys import MAX_KEY_BYTES, clean_key, stable_hash
from multimodal.datamodules.shards.members import Member, members
from multimodal.datamodules.shards.reader import split_name
from multimodal.errors import SampleError

EVERY = "*"
"""Stands for a key or a field where a problem is that of a whole shard or sample."""
MAX_PROBLEMS = 100_000
MAX_FIELD_BYTES = 1 << 30
MAX_METADATA_BYTES = 1 << 24
_CHUNK = 1 << 22
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*")  # as most are; looking at each character takes longer
_DAMAGE = (OSError, tarfile.TarError, ValueError, OverflowError, MemoryError, RecursionError)


class ShardTask(NamedTuple):
    """One shard to check.

    Args:
        file: path of the shard.
        info: what the index says of it.
        split: that it belongs to.
        fields: all that the index knows.
        everywhere: those that the index says every sample has.
        ids: modality name -> stored ids.
        deep: whether to check the contents of the fields.
        tagged: whether samples may have several labels.
    """

    file: str
    info: ShardInfo
    split: str
    fields: frozenset[str]
    everywhere: frozenset[str]
    ids: Mapping[str, StoredIds]
    deep: bool
    tagged: bool = False


@dataclass
class ShardReport:
    """What was found.

    Args:
        shard: as the index names it.
        problems: at most 100,000.
        more: how many problems are not listed.
        whole: whether the shard could be read to its end.
        contents: counts of its samples.
        key_hashes: a 64-bit hash of each key, in order.
        unchecked: (field, reason) -> how many fields could not be checked.
    """

    shard: str
    problems: list[SampleError] = field(default_factory=list)
    more: int = 0
    whole: bool = False
    contents: Contents = field(default_factory=Contents)
    key_hashes: array[int] = field(default_factory=lambda: array("Q"))
    unchecked: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, key: str, field: str, reason: str) -> None:
        """Note a problem."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(SampleError(self.shard, key, field, reason))
        else:
            self.more += 1


def check_shard(task: ShardTask) -> ShardReport:
    """Return what is wrong with a shard; nothing in it makes this raise."""
    report = ShardReport(task.info.path)
    try:
        status = os.stat(task.file)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise OSError("not a regular file")
        descriptor = os.open(task.file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        report.add(EVERY, EVERY, f"cannot be read: {getattr(error, 'strerror', None) or error}.")
        return report
    try:
        if status.st_size != task.info.bytes:
            report.add(EVERY, EVERY, f"{status.st_size} bytes; the index says {task.info.bytes}.")
        _ShardCheck(task, report, descriptor).run()
    except OSError as error:
        report.add(EVERY, EVERY, f"cannot be read: {error.strerror or error}.")
        report.whole = False
    finally:
        os.close(descriptor)
    return report


class _Hasher:
    """Hash a file from front to back, always a bit ahead of those who look at it: they find in memory what was read for the hash."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.digest, self.place = descriptor, hashlib.sha256(), 0

    def read_to(self, end: float) -> None:
        while self.place < end:
            chunk = os.pread(self.descriptor, _CHUNK, self.place)
            if not chunk:
                return
            self.digest.update(chunk)
            self.place += len(chunk)


class _ShardCheck:
    def __init__(self, task: ShardTask, report: ShardReport, descriptor: int) -> None:
        self.task, self.report, self.descriptor = task, report, descriptor
        self.hasher = _Hasher(descriptor)
        self.deep = FieldCheck(task.ids, task.split) if task.deep else None

    def run(self) -> None:
        reported = 0
        try:
            for key, parts in self._samples():
                self._sample(key, parts)
                advance(1, self.hasher.place - reported)
                reported = self.hasher.place
            self.report.whole = True
        except _DAMAGE as error:
            self.report.add(EVERY, EVERY, f"damaged after {self.report.contents.samples} samples: {error}.")
        self.hasher.read_to(float("inf"))
        advance(0, self.hasher.place - reported)
        self._compare()
        if self.deep:
            self.report.unchecked = self.deep.unchecked

    def _compare(self) -> None:
        info, digest, count = self.task.info, self.hasher.digest.hexdigest(), self.report.contents.samples
        if digest != info.sha256:
            self.report.add(EVERY, EVERY, f"its sha256 is {digest[:12]}..., the index says {str(info.sha256)[:12]}...: it was changed.")
        if count != info.samples:
            self.report.add(EVERY, EVERY, f"{count} samples; the index says {info.samples}.")
            self.report.whole = False

    def _samples(self) -> Iterator[tuple[str, list[tuple[str, Member]]]]:
        """Yield key and (field, member) of neighbours with the same key; of a shard that is cut off, not the last."""
        key, parts = None, []
        for member in members(self.descriptor):
            self.hasher.read_to(member.offset + member.size)
            own, name = split_name(member.name)
            if own != key and key is not None:
                yield key, parts
                parts = []
            key = own
            parts.append((name, member))
        if key is not None:
            yield key, parts

    def _sample(self, key: str, parts: list[tuple[str, Member]]) -> None:
        contents, report = self.report.contents, self.report
        contents.samples += 1
        report.key_hashes.append(stable_hash(key))
        if not (_PLAIN_KEY.fullmatch(key) and len(key) <= MAX_KEY_BYTES) and clean_key(key) != key:
            report.add(key, EVERY, "the key is not safe: absolute, too long, or with dots, backslashes, control characters or empty parts.")
        good: dict[str, Member] = {}
        for name, member in parts:
            problem = self._problem(name, member, good)
            if problem:
                report.add(key, name or EVERY, problem)
                continue
            if name not in self.task.fields:
                known = ", ".join(sorted(self.task.fields)) or "none"
                report.add(key, name, f"the index knows no such field; it lists {known}.")
            good[name] = member
            contents.fields[name] += 1
            contents.field_bytes[name] += member.size
        for name in sorted(self.task.everywhere - good.keys()):
            report.add(key, name, "the field is missing; the index says that every sample has it.")
        self._label(key, good)
        if self.deep:
            self._contents(key, good, self.deep)

    def _problem(self, name: str, member: Member, good: Mapping[str, Member]) -> str | None:
        if not name:
            return f"the member {member.name!r} has no extension."
        if not member.plain:
            return "not a plain file: links, devices and sparse files are refused."
        if name in good:
            return "the field is there twice."
        return None

    def _label(self, key: str, good: Mapping[str, Member]) -> None:
        member = good.get(METADATA)
        if member is None:
            return
        try:
            if member.size > MAX_METADATA_BYTES:
                raise ValueError(f"metadata of {member.size} bytes; {MAX_METADATA_BYTES} are allowed.")
            metadata = metadata_of(self._read(member))
            label, own = metadata.get(LABEL), found_classes(metadata)
            if label is not None and not own:
                raise ValueError(f"the label {str(label)[:40]!r} is not a string.")
            self.report.contents.class_counts.update(own)
            if self.task.tagged:
                self.report.contents.tag_counts.update(tags_of(metadata) or [])
        except ValueError as error:
            self.report.add(key, METADATA, str(error))

    def _contents(self, key: str, good: Mapping[str, Member], check: FieldCheck) -> None:
        num_ids: dict[str, int | None] = {name: None for name in good if check.holds_ids(name)}
        for name, member in good.items():
            if name == METADATA:
                continue
            if member.size > MAX_FIELD_BYTES:
                check.unchecked[name, f"larger than {MAX_FIELD_BYTES >> 20} MiB"] += 1
                continue
            try:
                if name in num_ids:
                    num_ids[name] = check.ids(name, self._read(member))
                else:
                    check.field(name, self._read(member))
            except ValueError as error:
                self.report.add(key, name, str(error) or type(error).__name__)
            except Exception as error:  # whatever a decoder's library raises on hostile bytes must not hide the other problems
                self.report.add(key, name, f"the decoder failed: {type(error).__name__}: {error}")
        for name, reason in check.views(num_ids):
            self.report.add(key, name, reason)

    def _read(self, member: Member) -> bytes:
        return os.pread(self.descriptor, member.size, member.offset)
