"""Which kind of source a user's argument is, and its scan."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from multimodal.datamodules.shards.index import FILE_NAME
from multimodal.datamodules.writing.sources.folder import FolderRules, scan_folder
from multimodal.datamodules.writing.sources.huggingface import is_dataset, scan_huggingface
from multimodal.datamodules.writing.sources.manifest import Columns, scan_manifest
from multimodal.datamodules.writing.sources.scan import OnError, Scan
from multimodal.datamodules.writing.sources.tables import READERS
from multimodal.datamodules.writing.sources.tars import scan_tars

Kind = Literal["folder", "manifest", "huggingface", "tars"]
KINDS: tuple[Kind, ...] = ("folder", "manifest", "huggingface", "tars")


@dataclass(frozen=True)
class SourceRules:
    """How a source is read; what does not apply to its kind is refused.

    Args:
        folder: for a folder; its extensions are also those of tars.
        columns: for a manifest and a data set of Hugging Face; of tars the label.
        required: fields that each sample must have; others are left out. Not for a data set of Hugging Face, whose rows are read later.
        root: for a manifest: folder that its paths are relative to; None: its own.
        on_error: whether a file that cannot be used stops the scan or is left out and listed.
    """

    folder: FolderRules = field(default_factory=FolderRules)
    columns: Columns = field(default_factory=Columns)
    required: Sequence[str] = ()
    root: str | None = None
    on_error: OnError = "raise"


def recognise(names: Sequence[str]) -> Kind:
    """Return the kind of a source.

    Args:
        names: one folder or table, or tars.

    Raises:
        ValueError: several names that are no tars, or a name that stands for nothing.
    """
    first = Path(names[0])
    if len(names) > 1 or first.suffix == ".tar" or glob.has_magic(names[0]) or ("{" in names[0] and not first.exists()):
        return "tars"
    if first.suffix.lower() in READERS and not first.is_dir():
        return "manifest"
    if not first.exists():
        raise ValueError(f"{first} is not a folder, and not a file either: it does not exist.")
    if not first.is_dir():
        raise ValueError(f"{first} is not a folder, a tar or a table ({', '.join(READERS)}).")
    if is_dataset(first):
        return "huggingface"
    return "tars" if _holds_tars(first) else "folder"


def scan_source(names: Sequence[str], kind: Kind, rules: SourceRules) -> Scan:
    """Find the samples of a source of a known kind.

    Raises:
        ValueError: a setting that has no effect on this kind, or the source cannot be used.
    """
    _check(names, kind, rules)
    scan = _scan(names, kind, rules)
    if rules.required:
        scan.keep_complete(rules.required)
    return scan


def _scan(names: Sequence[str], kind: Kind, rules: SourceRules) -> Scan:
    if kind == "folder":
        return scan_folder(names[0], rules.folder, rules.on_error)
    if kind == "manifest":
        return scan_manifest(names[0], rules.columns, rules.root, rules.on_error)
    if kind == "huggingface":
        return scan_huggingface(names[0], rules.columns)
    return scan_tars(names, rules.folder.extensions, rules.columns.label, rules.on_error)


def _holds_tars(folder: Path) -> bool:
    """Return whether a folder is one of shards: no sub-folders, and no files but tars and their index."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    tars = [entry for entry in entries if entry.suffix == ".tar" and entry.is_file()]
    return bool(tars) and all(entry in tars or entry.name == FILE_NAME for entry in entries)


def _check(names: Sequence[str], kind: Kind, rules: SourceRules) -> None:
    if len(names) > 1 and kind != "tars":
        raise ValueError(f"a source of kind {kind} is one folder or file, got {len(names)}: {', '.join(names[:5])}.")
    folder, columns = rules.folder, rules.columns
    kinds: dict[str, tuple[object, tuple[Kind, ...]]] = {
        "--split folders": (folder.split_folders, ("folder",)),
        "--merge-folders": (folder.merge_folders, ("folder",)),
        "--field-pattern": (folder.field_patterns, ("folder",)),
        "--extensions": (folder.extensions, ("folder", "tars")),
        "--require": (rules.required, ("folder", "manifest", "tars")),
        "--root": (rules.root, ("manifest",)),
        "--path-columns": (columns.paths, ("manifest",)),
        "--split-column": (columns.split, ("manifest",)),
        "--labels-column": (columns.labels, ("manifest",)),
        "--text-columns": (columns.texts, ("manifest", "huggingface")),
        "--key-column": (columns.key, ("manifest", "huggingface")),
        "--label-column": (columns.label, ("manifest", "huggingface", "tars")),
    }
    for option, (value, allowed) in kinds.items():
        if value and kind not in allowed:
            raise ValueError(f"{option} has no effect on a source of kind {kind}: it is for {', '.join(allowed)}.")
