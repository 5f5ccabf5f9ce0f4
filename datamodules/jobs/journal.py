"""What an unfinished run has finished: shards that the same command, run again, need not write again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from multimodal.datamodules.shards.contents import Contents
from multimodal.datamodules.shards.index import ShardInfo
from multimodal.datamodules.shards.shard_file import file_sha256

JOURNAL_NAME = ".unfinished.jsonl"


class Journal:
    """Shards that are finished, one JSON object a line; the file exists until the index does.

    Args:
        root: folder of the shards.
        name: of the file in it.

    Attributes:
        replaced: paths of shards that an index listed which the run removed.
    """

    def __init__(self, root: Path, name: str = JOURNAL_NAME) -> None:
        self.root = root
        self.path = root / name
        self.lines: dict[str, dict[str, Any]] = {}
        self.replaced: set[str] = set()
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                self._remember(line)

    def _remember(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self.replaced.update(name for name in entry.get("replaced", ()) if isinstance(name, str))
            if "info" in entry and isinstance(entry["info"]["path"], str):
                self.lines[entry["info"]["path"]] = entry
        except (ValueError, KeyError, TypeError, AttributeError):
            pass  # the line that was being written when the run was killed: that shard is written again

    def find(self, path: str, plan: str) -> tuple[ShardInfo, Contents] | None:
        """Return what is in a shard if it was finished with this plan and its file still has those bytes.

        Args:
            path: of the shard, relative to the folder.
            plan: a hash of all that decides its bytes.
        """
        entry = self.lines.get(path, {})
        if entry.get("plan") != plan:
            return None
        try:
            info, contents = ShardInfo(**entry["info"]), Contents.from_json(entry["contents"])
        except (KeyError, TypeError, AttributeError):
            return None  # a line that this program did not write
        file = self.root / path
        if info.samples and not (file.is_file() and file_sha256(file) == info.sha256):
            return None
        return info, contents

    def add(self, plan: str, info: ShardInfo, contents: Contents) -> None:
        """Note a finished shard.

        Raises:
            OSError: the disk is full.
        """
        self._append({"plan": plan, "info": asdict(info), "contents": vars(contents)})

    def replace(self, paths: Iterable[str]) -> None:
        """Note shards of an earlier index that this run may replace; they are ``replaced`` until the journal is removed."""
        self.replaced.update(paths)
        if self.replaced:
            self._append({"replaced": sorted(self.replaced)})

    def _append(self, entry: dict[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps(entry))  # first ends a line cut off by a kill
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def remove(self) -> None:
        """Forget all: the index is there."""
        self.path.unlink(missing_ok=True)
