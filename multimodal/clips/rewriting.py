"""Make shards of clips from other shards: of the same names, keys and order. What features and ids have in common."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimodal.clips.recipe import SAID
from multimodal.datamodules.jobs.folder_run import FolderRun, WriteResult, written_index
from multimodal.datamodules.jobs.run_jobs import Advance
from multimodal.datamodules.shards.contents import Contents
from multimodal.datamodules.shards.index import FILE_NAME, ShardIndex, ShardInfo
from multimodal.datamodules.shards.shard_file import file_sha256
from multimodal.datamodules.tokenizing.rewritten_shard import PlannedJob, ShardJob
from multimodal.datamodules.tokenizing.tokenize import RunOptions


@dataclass(frozen=True)
class Rewriting:
    """A folder of shards to make from a source.

    Args:
        source: what is read, all splits.
        root: the folder; made if it is not there. One that holds the result already stays as it is.
        said: what decides the bytes beside the source, as plain data; the index will say it.
    """

    source: ShardIndex
    root: Path
    said: Mapping[str, Any]

    def run(
        self, make: Callable[[ShardJob], tuple[ShardInfo, Contents]], options: RunOptions | None = None, listener: Advance | None = None
    ) -> WriteResult:
        """Make the shards that are not finished, and the index.

        Args:
            make: makes one; picklable.
            options: who does it.
            listener: told of samples and bytes that are done.

        Raises:
            ValueError: the folder is the source or holds other shards, or another process writes there.
            SampleError: a sample cannot be read.
            OSError: the disk is full (the message names the shard), or a worker process died.
        """
        options = options or RunOptions()
        if not self.source.url and self.source.root.resolve() == self.root.resolve():
            raise ValueError(f"{self.root} is the source: write to another folder.")
        shards = self._plan()
        plan = hashlib.sha256("\n".join(shard.plan for shard in shards).encode()).hexdigest()
        if not options.overwrite and (self.root / FILE_NAME).exists():
            if (index := written_index(self.root, plan)) is None:
                raise ValueError(f"{self.root} holds other shards, or damaged ones: give another --to, or replace them with --overwrite.")
            return WriteResult(index, [], sum(map(options.part.takes, range(len(shards)))), [])
        writer = {**self.source.writer, SAID: dict(self.said)}
        outline = ShardIndex({split: () for split in self.source.splits}, {}, ids=self.source.ids, writer=writer)
        return FolderRun(self.root, plan, outline, shards, make, options.num_workers, options.engine, options.part).run(listener)

    def _plan(self) -> list[PlannedJob]:
        """Return the shards to make, in the order of the index.

        Raises:
            ValueError: two shards of the source have the same name.
        """
        planned = []
        for split, infos in self.source.splits.items():
            for info in infos:
                location = self.source.location(info)
                facts = json.dumps([info.sha256 or file_sha256(Path(location)), info.samples, self.said], sort_keys=True)
                plan = hashlib.sha256(facts.encode()).hexdigest()
                planned.append(PlannedJob(location, bool(self.source.url), info, False, self.root / Path(info.path).name, split, plan))
        names = Counter(shard.path for shard in planned)
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"the source has several shards of the name {twice[0]}: read its folders one by one.")
        return planned
