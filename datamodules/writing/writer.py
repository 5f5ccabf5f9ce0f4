"""Write samples into tar shards that plain webdataset reads; the same samples give the same bytes.

A shard gets its name when it is complete. What is finished is noted in a journal, so that the same command after an interruption goes on
where it stopped; the index is written last, and a folder without one is unfinished.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multimodal.atomic import remove_temporary
from multimodal.datamodules.jobs.folder_lock import folder_lock
from multimodal.datamodules.jobs.journal import Journal
from multimodal.datamodules.jobs.parts import Finished, Part, merge_parts, sweep_notes
from multimodal.datamodules.jobs.run_jobs import Advance, Engine, advance, run_jobs
from multimodal.datamodules.shards.contents import Contents, total
from multimodal.datamodules.shards.index import FILE_NAME, ShardIndex, ShardInfo, field_info
from multimodal.datamodules.shards.shard_file import ShardFile
from multimodal.datamodules.writing.sources.samples import SourceSample
from multimodal.datamodules.writing.sources.scan import OnError
from multimodal.datamodules.writing.write_plan import PlannedShard, ShardLimits, plan_identity, plan_shards

_SHARD_NAME = re.compile(r"[^/\\]+\.tar")


@dataclass(frozen=True)
class WriteOptions:
    """How shards are written.

    Args:
        limits: when a shard is full.
        on_error: whether a file that cannot be read stops the run or its sample is left out and listed.
        num_workers: processes; 0 writes in this one.
        engine: where they run; see ``run_jobs``.
        part: which shards of the plan are written by this run.
        settings: kept in the index for the record.
    """

    limits: ShardLimits = field(default_factory=ShardLimits)
    on_error: OnError = "raise"
    num_workers: int = 0
    engine: Engine = "local"
    part: Part = field(default_factory=Part)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class WriteResult:
    """What a run wrote.

    Args:
        index: as saved; None where other parts are still missing.
        problems: one line for each sample left out.
        kept: number of shards that an interrupted run had finished.
        missing: numbers of the parts that are not complete.
    """

    index: ShardIndex | None
    problems: list[str]
    kept: int
    missing: list[int]


def write_shards(
    splits: Mapping[str, Sequence[SourceSample]],
    folder: Path | str,
    options: WriteOptions | None = None,
    plan: str | None = None,
    listener: Advance | None = None,
) -> WriteResult:
    """Write the samples of each split, in order, into ``<folder>/<split>-000000.tar`` and so on, and the index.

    Args:
        splits: split name -> samples.
        folder: made if it is not there; shards that an index there lists are replaced.
        options: how.
        plan: hash of what is written, for the index (``plan_identity``); None: that of the samples.
        listener: told of samples and bytes that are done.

    Raises:
        FileError: a file cannot be read and ``on_error`` is "raise".
        OSError: the disk is full (the message names the shard and what it needs), or a worker process died.
        ValueError: another process writes there.
    """
    options, root = options or WriteOptions(), Path(folder)
    shards = plan_shards(splits, options.limits, options.on_error)
    plan = plan or plan_identity(splits, {**options.settings, "limits": options.limits, "on_error": options.on_error})
    run = _Run(root, options, plan, tuple(splits), shards)
    own = [shard for place, shard in enumerate(shards) if options.part.takes(place)]
    root.mkdir(parents=True, exist_ok=True)
    with folder_lock(root, options.part.lock_name):
        remove_temporary(root, {shard.path for shard in own})
        journal = Journal(root, options.part.journal_name)
        _retire_index(root, journal)
        finished, kept = _finish(own, run, journal, listener)
        index, missing = _conclude(run, finished, journal)
    problems = total(finished[shard.path][1] for shard in own).problems
    return WriteResult(index, problems, kept, missing)


@dataclass(frozen=True)
class _Run:
    """What does not change in a run.

    Args:
        root: folder of the shards.
        options: how they are written.
        plan: hash of what is written.
        splits: names, in order.
        shards: of all parts, in order.
    """

    root: Path
    options: WriteOptions
    plan: str
    splits: Sequence[str]
    shards: Sequence[PlannedShard]


@dataclass(frozen=True)
class _Job:
    root: Path
    shard: PlannedShard


def _finish(own: Sequence[PlannedShard], run: _Run, journal: Journal, listener: Advance | None) -> tuple[Finished, int]:
    """Return the shards of this part, written now or kept, and the number of the latter."""
    finished: dict[str, tuple[ShardInfo, Contents]] = {}
    plans = {shard.path: shard.plan for shard in own}
    for shard in own:
        found = journal.find(shard.path, plans[shard.path])
        if found is not None:
            finished[shard.path] = found
            if listener:
                listener(len(shard.samples), found[0].bytes)
    kept = len(finished)
    jobs = [_Job(run.root, shard) for shard in own if shard.path not in finished]
    for number, (info, contents) in run_jobs(_write_shard, jobs, run.options.num_workers, run.options.engine, listener):
        journal.add(plans[info.path], info, contents)
        finished[jobs[number].shard.path] = info, contents
    return finished, kept


def _write_shard(job: _Job) -> tuple[ShardInfo, Contents]:
    path, samples = job.root / job.shard.path, job.shard.samples
    try:
        with ShardFile(path) as shard:
            for sample in samples:
                advance(1, _add(shard, sample, job.shard.on_error))
    except OSError as error:
        needed = sum(sample.size for sample in samples)
        raise OSError(error.errno, f"{error.strerror}; the shard needs about {needed} bytes", str(path)) from error
    return shard.info, shard.contents


def _add(shard: ShardFile, sample: SourceSample, on_error: OnError) -> int:
    try:
        return shard.add(sample.key, sample.read())
    except ValueError as error:
        if on_error == "raise":
            raise
        shard.contents.problems.append(str(error))
        return 0


def _conclude(run: _Run, finished: Finished, journal: Journal) -> tuple[ShardIndex | None, list[int]]:
    """Write the index if all parts are complete, and return it, else the numbers of the missing parts."""
    replaced = set(journal.replaced)
    if run.options.part.count > 1:
        run.options.part.save(run.root, run.plan, finished, sorted(replaced))
        finished, replaced, missing = merge_parts(run.options.part, run.root, run.plan)
        if missing:
            index = written_index(run.root, run.plan)  # another part may just have written it and removed the notes
            return index, [] if index else missing
    return _write_index(run, finished, replaced), []


def _write_index(run: _Run, finished: Finished, replaced: set[str]) -> ShardIndex:
    """Write the index of finished shards, remove what is no longer needed, and return the index."""
    root, options = run.root, run.options
    shards: dict[str, list[ShardInfo]] = {split: [] for split in run.splits}
    for shard in run.shards:
        info = finished[shard.path][0]
        if info.samples:
            shards[shard.split].append(info)
    counts = total(finished[shard.path][1] for shard in run.shards)
    fields = field_info(counts.fields, counts.field_bytes)
    ShardIndex(shards, fields, counts.class_counts, writer={**options.settings, "plan": run.plan}).save(root)
    for path in (replaced | sweep_notes(root)) - set(finished):
        if _SHARD_NAME.fullmatch(path):  # notes may lie in a folder that somebody else made
            (root / path).unlink(missing_ok=True)
    return ShardIndex.load(root)


def written_index(root: Path, plan: str) -> ShardIndex | None:
    """Return the index of a folder if it says that this plan was written, and its shards are there."""
    try:
        index = ShardIndex.load(root)
    except ValueError:
        return None
    return index if index.writer.get("plan") == plan else None


def newest_change(splits: Mapping[str, Sequence[SourceSample]]) -> int:
    """Return the time of the last change of any file of the samples, in ns."""
    return max((sample.changed_ns for samples in splits.values() for sample in samples), default=0)


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
