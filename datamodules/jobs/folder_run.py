"""Make a folder of shards, whatever is in them: one job a shard, and an index when all are there.

A shard gets its name when it is complete. What is finished is noted in a journal, so that the same run after an interruption goes on where
it stopped; the index is written last, and a folder without one is unfinished.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

from multimodal.atomic import remove_temporary
from multimodal.datamodules.jobs.folder_lock import folder_lock
from multimodal.datamodules.jobs.journal import Journal
from multimodal.datamodules.jobs.parts import Finished, Part, merge_parts, sweep_notes
from multimodal.datamodules.jobs.run_jobs import Advance, Engine, run_jobs
from multimodal.datamodules.shards.contents import Contents, total
from multimodal.datamodules.shards.index import FILE_NAME, ShardIndex, ShardInfo, field_info

_SHARD_NAME = re.compile(r"[^/\\]+\.tar")


@runtime_checkable
class ShardToMake(Protocol):
    """A shard of a run, which is also its job; picklable where several processes work."""

    @property
    def split(self) -> str:
        """That it belongs to."""
        ...

    @property
    def path(self) -> str:
        """Its name in the folder."""
        ...

    @property
    def plan(self) -> str:
        """A hash of all that decides its bytes."""
        ...

    @property
    def num_samples(self) -> int:
        """How many samples its job goes through."""
        ...


Shard = TypeVar("Shard", bound=ShardToMake)


@dataclass
class WriteResult:
    """What a run wrote.

    Args:
        index: as saved; None where other parts are still missing.
        problems: one line for each sample that could not be used.
        kept: number of shards that an interrupted run had finished.
        missing: numbers of the parts that are not complete.
    """

    index: ShardIndex | None
    problems: list[str]
    kept: int
    missing: list[int]


@dataclass(frozen=True)
class FolderRun(Generic[Shard]):
    """All shards of a folder, and how they are made.

    Args:
        root: the folder; made if it is not there. Shards that an index there lists are replaced.
        plan: hash of what is made, the same for all parts; kept in the index.
        outline: the index without shards and counts: the names of the splits, in order, the stored ids and the settings.
        shards: of all parts, in order.
        make: makes one of them; picklable where several processes work.
        num_workers: processes; 0 makes the shards in this one.
        engine: where they run; see ``run_jobs``.
        part: which shards are made by this run.
    """

    root: Path
    plan: str
    outline: ShardIndex
    shards: Sequence[Shard]
    make: Callable[[Shard], tuple[ShardInfo, Contents]]
    num_workers: int = 0
    engine: Engine = "local"
    part: Part = field(default_factory=Part)

    def run(self, listener: Advance | None = None) -> WriteResult:
        """Make the shards of this part that are not finished, and the index if those of all others are.

        Args:
            listener: told of samples and bytes that are done.

        Raises:
            OSError: the disk is full, or a worker process died.
            ValueError: another process writes there.
            Exception: that of the first shard that cannot be made.
        """
        own = [shard for place, shard in enumerate(self.shards) if self.part.takes(place)]
        self.root.mkdir(parents=True, exist_ok=True)
        with folder_lock(self.root, self.part.lock_name):
            remove_temporary(self.root, {shard.path for shard in own})
            journal = Journal(self.root, self.part.journal_name)
            _retire_index(self.root, journal)
            finished, kept = self._finish(own, journal, listener)
            index, missing = self._conclude(finished, journal)
        return WriteResult(index, total(finished[shard.path][1] for shard in own).problems, kept, missing)

    def _finish(self, own: Sequence[Shard], journal: Journal, listener: Advance | None) -> tuple[Finished, int]:
        """Return the shards of this part, made now or kept, and the number of the latter."""
        finished: dict[str, tuple[ShardInfo, Contents]] = {}
        plans = {shard.path: shard.plan for shard in own}  # each is a hash over many samples
        for shard in own:
            found = journal.find(shard.path, plans[shard.path])
            if found is not None:
                finished[shard.path] = found
                if listener:
                    listener(shard.num_samples, found[0].bytes)
        kept = len(finished)
        todo = [shard for shard in own if shard.path not in finished]
        for number, result in run_jobs(self.make, todo, self.num_workers, self.engine, listener):
            path = todo[number].path
            journal.add(plans[path], *result)
            finished[path] = result
        return finished, kept

    def _conclude(self, finished: Finished, journal: Journal) -> tuple[ShardIndex | None, list[int]]:
        """Write the index if all parts are complete, and return it, else the numbers of the missing parts."""
        replaced = set(journal.replaced)
        if self.part.count > 1:
            self.part.save(self.root, self.plan, finished, sorted(replaced))
            finished, replaced, missing = merge_parts(self.part, self.root, self.plan)
            if missing:
                index = written_index(self.root, self.plan)  # another part may just have written it and removed the notes
                return index, [] if index else missing
        self._index(finished).save(self.root)
        for path in (replaced | sweep_notes(self.root)) - set(finished):
            if _SHARD_NAME.fullmatch(path):  # notes may lie in a folder that somebody else made
                (self.root / path).unlink(missing_ok=True)
        return ShardIndex.load(self.root), []

    def _index(self, finished: Finished) -> ShardIndex:
        splits: dict[str, list[ShardInfo]] = {split: [] for split in self.outline.splits}
        for shard in self.shards:
            info = finished[shard.path][0]
            if info.samples:
                splits[shard.split].append(info)
        counts = total(finished[shard.path][1] for shard in self.shards)
        fields = field_info(counts.fields, counts.field_bytes)
        writer = {**self.outline.writer, "plan": self.plan}
        index = replace(self.outline, splits=splits, fields=fields, writer=writer)
        return replace(index, class_counts=counts.class_counts, tag_counts=counts.tag_counts)


def written_index(root: Path, plan: str) -> ShardIndex | None:
    """Return the index of a folder if it says that this plan was written, and its shards are there."""
    try:
        index = ShardIndex.load(root)
    except ValueError:
        return None
    return index if index.writer.get("plan") == plan else None


def _retire_index(root: Path, journal: Journal) -> None:
    """Remove an index, whose hashes are about to become wrong; the journal notes the shards that it lists."""
    path = root / FILE_NAME
    try:
        index = ShardIndex.parse(path.read_bytes(), str(path))
        earlier = {shard.path for shards in index.splits.values() for shard in shards}
    except (OSError, ValueError):
        earlier = set()  # none, or one that nobody can use
    journal.replace(sorted(earlier))
    path.unlink(missing_ok=True)
