"""What was made from what, on disk: so that rounds go on where they stopped, and a model can say where it comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from multimodal import __version__
from multimodal.atomic import atomic_file
from multimodal.config_errors import ConfigError

FILE_NAME = "lineage.json"
VERSION = 1


@dataclass(frozen=True)
class Made:
    """What one stage of a round has made.

    Args:
        round: its number, from 1.
        stage: its name.
        made: path within the run -> hash of the content; "" for what was removed when its round was over.
        made_from: name -> hash of what it was made from.
    """

    round: int
    stage: str
    made: dict[str, str]
    made_from: dict[str, str] = field(default_factory=dict)


class Lineage:
    """The stages of a run that are done, as ``RUN/lineage.json`` has them.

    Args:
        root: folder of the run.
        plan: fingerprint of its recipes.

    Raises:
        ConfigError: the folder holds a run of other recipes.
        ValueError: the file is damaged.
    """

    def __init__(self, root: Path, plan: str) -> None:
        self.root, self.plan = root, plan
        self.done: list[Made] = []
        self._looked_at: set[tuple[int, str]] = set()  # stages whose files were hashed; large models take seconds
        if (root / FILE_NAME).is_file():
            self._load()

    def _load(self) -> None:
        path = self.root / FILE_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            plan, self.done = content["plan"], [Made(**entry) for entry in content["stages"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}): give another --run.") from None
        if plan != self.plan:
            raise ConfigError(
                f"{self.root} holds rounds that were begun with other recipes: give another --run, or the config they began with."
            )

    def find(self, number: int, stage: str) -> Made | None:
        """Return what a stage has made; None: it is not done.

        Raises:
            ValueError: what it made is gone, or is not what it was.
        """
        found = next((entry for entry in self.done if (entry.round, entry.stage) == (number, stage)), None)
        new = found is not None and (number, stage) not in self._looked_at
        for path, digest in found.made.items() if found and new else ():
            if digest and content_hash(self.root / path) != digest:
                raise ValueError(
                    f"{self.root / path} is not what round {number} made there, and later stages were made from that: put it back, or give "
                    "another --run."
                )
        self._looked_at |= {(number, stage)} if found else set()
        return found

    def add(self, entry: Made) -> None:
        """Note a stage that is done."""
        self.done.append(entry)
        self._write()

    def forget(self, entry: Made) -> None:
        """Note that what a stage made was removed."""
        place = self.done.index(entry)
        self.done[place] = Made(entry.round, entry.stage, dict.fromkeys(entry.made, ""), entry.made_from)
        self._write()

    def _write(self) -> None:
        content = {"version": VERSION, "multimodal": __version__, "plan": self.plan, "stages": [asdict(entry) for entry in self.done]}
        with atomic_file(self.root / FILE_NAME) as file:
            file.write((json.dumps(content, indent=2) + "\n").encode())


def content_hash(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, or of the names and contents of all files of a folder; "" where there is nothing.

    Of a folder of shards only the index counts: it has the hash of every shard.
    """
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if (path / "index.json").is_file():
        return content_hash(path / "index.json")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return hash_of({str(file.relative_to(path)): content_hash(file) for file in files}) if files else ""


def hash_of(content: Mapping[str, object]) -> str:
    """Return the SHA-256 (hex) of settings."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
