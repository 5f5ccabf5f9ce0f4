"""What an unfinished run has finished: shards that the same command, run again, need not write again."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from multimodal.datamodules.contents import Contents
from multimodal.datamodules.index import ShardInfo
from multimodal.datamodules.shard_file import file_sha256

JOURNAL_NAME = ".unfinished.jsonl"


class Journal:
    """Shards that are finished, one JSON object a line; the file exists until the index does.

    Args:
        root: folder of the shards.
        name: of the file in it.
    """

    def __init__(self, root: Path, name: str = JOURNAL_NAME) -> None:
        self.root = root
        self.path = root / name
        self.lines: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                self._remember(line)

    def _remember(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self.lines[entry["info"]["path"]] = entry
        except (ValueError, KeyError, TypeError):
            pass  # the line that was being written when the run was killed: that shard is written again

    def find(self, path: str, plan: str) -> tuple[ShardInfo, Contents] | None:
        """Return what is in a shard if it was finished with this plan and its file still has those bytes.

        Args:
            path: of the shard, relative to the folder.
            plan: a hash of all that decides its bytes.
        """
        entry = self.lines.get(path)
        if entry is None or entry["plan"] != plan:
            return None
        info = ShardInfo(**entry["info"])
        file = self.root / path
        if info.samples and not (file.is_file() and file_sha256(file) == info.sha256):
            return None
        return info, Contents.from_json(entry["contents"])

    def add(self, plan: str, info: ShardInfo, contents: Contents) -> None:
        """Note a finished shard."""
        entry = {"plan": plan, "info": asdict(info), "contents": vars(contents)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(entry))  # first ends a line cut off by a kill

    def remove(self) -> None:
        """Forget all: the index is there."""
        self.path.unlink(missing_ok=True)
