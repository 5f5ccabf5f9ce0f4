"""A write that several machines share: each writes every n-th shard of the same plan, and the last to finish writes the index."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from multimodal.atomic import atomic_file
from multimodal.datamodules.jobs.journal import JOURNAL_NAME, Journal
from multimodal.datamodules.shards.contents import Contents
from multimodal.datamodules.shards.index import ShardInfo

Finished = Mapping[str, tuple[ShardInfo, Contents]]
"""Path of a shard -> what is in it."""


@dataclass(frozen=True)
class Part:
    """Part ``number`` of ``count``: the shards whose place in the plan leaves the remainder ``number - 1``.

    Args:
        number: 1 to ``count``.
        count: number of parts.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, argument: str) -> Part:
        """Return the part that ``2/8`` says.

        Raises:
            ValueError: not of that form.
        """
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", argument)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"--part {argument!r} is not I/N with I from 1 to N, as in 1/4.")
        return cls(int(match[1]), int(match[2]))

    def takes(self, place: int) -> bool:
        """Return whether the shard at a place of the plan belongs to this part."""
        return place % self.count == self.number - 1

    @property
    def suffix(self) -> str:
        """What the names of this part's own files end in; "" where there is one part."""
        return "" if self.count == 1 else f"-{self.number}-of-{self.count}"

    @property
    def journal_name(self) -> str:
        """Name of its journal."""
        return JOURNAL_NAME.replace(".jsonl", f"{self.suffix}.jsonl")

    @property
    def lock_name(self) -> str:
        """Name of its lock."""
        return f".writing{self.suffix}"

    def others(self) -> list[Part]:
        """Return all parts, this one included."""
        return [Part(number, self.count) for number in range(1, self.count + 1)]

    def save(self, folder: Path, plan: str, finished: Finished, replaced: Sequence[str]) -> None:
        """Note that this part is complete.

        Args:
            folder: of the shards.
            plan: hash of the whole plan.
            finished: its shards.
            replaced: shards of an earlier index that the whole run replaces.
        """
        lines = {path: {"info": asdict(info), "contents": vars(contents)} for path, (info, contents) in finished.items()}
        with atomic_file(self._path(folder)) as file:
            file.write(json.dumps({"plan": plan, "shards": lines, "replaced": list(replaced)}).encode())

    def load(self, folder: Path, plan: str) -> tuple[Finished, set[str]] | None:
        """Return its shards and the replaced ones if it is complete, for this plan; else None."""
        try:
            content = json.loads(self._path(folder).read_bytes())
            if content["plan"] != plan:
                return None
            finished = {path: (ShardInfo(**line["info"]), Contents.from_json(line["contents"])) for path, line in content["shards"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        there = all((folder / path).is_file() for path, (info, _) in finished.items() if info.samples)
        return (finished, set(content["replaced"])) if there else None

    def remove(self, folder: Path) -> None:
        """Remove what is noted of this part: the index says it all."""
        if self.count > 1:
            self._path(folder).unlink(missing_ok=True)
        (folder / self.journal_name).unlink(missing_ok=True)

    def _path(self, folder: Path) -> Path:
        return folder / f".part{self.suffix}.json"


def merge_parts(part: Part, folder: Path, plan: str) -> tuple[Finished, set[str], list[int]]:
    """Return the shards of all parts, the replaced shards, and the numbers of the parts that are not complete."""
    finished: dict[str, tuple[ShardInfo, Contents]] = {}
    replaced: set[str] = set()
    missing = []
    for one in part.others():
        loaded = one.load(folder, plan)
        if loaded is None:
            missing.append(one.number)
        else:
            finished.update(loaded[0])
            replaced |= loaded[1]
    return finished, replaced, missing


def sweep_notes(folder: Path) -> set[str]:
    """Remove the notes of all unfinished runs, also of those with another number of parts, and return the shards that they name."""
    named: set[str] = set()
    for path in folder.glob(JOURNAL_NAME.replace(".jsonl", "*.jsonl")):
        journal = Journal(folder, path.name)
        named |= journal.replaced | set(journal.lines)
        path.unlink(missing_ok=True)
    for path in folder.glob(".part-*-of-*.json"):
        path.unlink(missing_ok=True)
    return named
