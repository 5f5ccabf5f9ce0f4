"""Write samples into tar shards that plain webdataset reads; the same samples give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multimodal.datamodules.jobs.folder_run import FolderRun, WriteResult
from multimodal.datamodules.jobs.parts import Part
from multimodal.datamodules.jobs.run_jobs import Advance, Engine, advance
from multimodal.datamodules.shards.contents import Contents
from multimodal.datamodules.shards.index import ShardIndex, ShardInfo
from multimodal.datamodules.shards.shard_file import ShardFile
from multimodal.datamodules.writing.sources.samples import SourceSample
from multimodal.datamodules.writing.sources.scan import OnError
from multimodal.datamodules.writing.write_plan import PlannedShard, ShardLimits, plan_identity, plan_shards


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
    options = options or WriteOptions()
    shards = plan_shards(splits, options.limits, options.on_error)
    plan = plan or plan_identity(splits, {**options.settings, "limits": options.limits, "on_error": options.on_error})
    outline = ShardIndex({split: () for split in splits}, {}, writer=options.settings)
    write = _ShardWriter(Path(folder))
    return FolderRun(write.root, plan, outline, shards, write, options.num_workers, options.engine, options.part).run(listener)


@dataclass(frozen=True)
class _ShardWriter:
    """Writes planned shards into a folder."""

    root: Path

    def __call__(self, planned: PlannedShard) -> tuple[ShardInfo, Contents]:
        path = self.root / planned.path
        try:
            with ShardFile(path) as shard:
                for sample in planned.samples:
                    advance(1, _add(shard, sample, planned.on_error))
        except OSError as error:
            needed = sum(sample.size for sample in planned.samples)
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


def newest_change(splits: Mapping[str, Sequence[SourceSample]]) -> int:
    """Return the time of the last change of any file of the samples, in ns."""
    return max((sample.changed_ns for samples in splits.values() for sample in samples), default=0)
