"""A folder of files as samples to write: which files belong together, their key, label and split.

Files with the same path up to the extension are the fields of one sample. The first sub-folder is the label.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from multimodal.datamodules.contents import METADATA
from multimodal.datamodules.keys import clean_key, split_of, stable_hash

SPLIT_FOLDERS = ("train", "val", "test")
_FIELD_NAME = re.compile(r"[a-z0-9_+-]+")


class FileError(ValueError):
    """A file of the source cannot be used; the message names it."""


@dataclass(frozen=True)
class SourceFile:
    """A file as it was found: a change of size or time since then means other content.

    Args:
        path: where it is.
        size: bytes.
        modified_ns: time of the last change.
    """

    path: str
    size: int
    modified_ns: int


@dataclass(frozen=True)
class SourceSample:
    """Files that become one sample.

    Args:
        key: its name in the shard.
        source: path of its first file, relative to the folder.
        label: name of the class; None without one.
        files: field (extension, lower case, no dot) -> file.
    """

    key: str
    source: str
    label: str | None
    files: Mapping[str, SourceFile]

    def read(self) -> dict[str, bytes]:
        """Return field -> bytes, in the order of the names; the metadata field holds the label and the source.

        Raises:
            FileError: a file is unreadable, empty or no longer what the scan saw, or its metadata is not a JSON object.
        """
        fields = {name: _read_file(file) for name, file in self.files.items()}
        fields[METADATA] = self._metadata(fields.get(METADATA))
        return dict(sorted(fields.items()))

    def _metadata(self, own: bytes | None) -> bytes:
        made = {"source": self.source} | ({} if self.label is None else {"label": self.label})
        try:
            content = made | (json.loads(own) if own else {})
        except (ValueError, TypeError) as error:
            raise FileError(f"{self.files[METADATA].path}: not a JSON object ({error}).") from None
        if not isinstance(content.get("label", ""), str):
            raise FileError(f"{self.files[METADATA].path}: the label {content['label']!r} is not a string.")
        return json.dumps(content, ensure_ascii=True, sort_keys=True).encode()


@dataclass
class ScannedFolder:
    """What a scan found.

    Args:
        splits: split name -> its samples, in the order in which they are to be written.
        problems: one line for each file left out because it cannot be used.
        ignored: extension ("" for none) -> files left out because they were not asked for.
    """

    splits: dict[str, list[SourceSample]]
    problems: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def scan_folder(
    folder: Path | str,
    split: Mapping[str, float] | Literal["folders"],
    extensions: Sequence[str] | None = None,
    on_error: Literal["raise", "skip"] = "raise",
) -> ScannedFolder:
    """Find the samples of a folder.

    Hidden files and folders are left out. The order is fixed by a hash of the keys, so that each shard mixes the classes.

    Args:
        folder: the files; sub-folders are the classes.
        split: share of each split, by a hash of the key; or "folders" where the top level is ``train/``, ``val/``, ``test/``.
        extensions: the files to take, without dot; None: every file with an extension.
        on_error: whether an empty or unreadable file stops the scan or is left out and listed.

    Raises:
        ValueError: no such folder, no files to take, or a top level other than splits.
        FileError: a file cannot be used.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder.")
    scanned = ScannedFolder(splits={})
    wanted = None if extensions is None else {extension.lower().lstrip(".") for extension in extensions}
    tops = _split_folders(root) if split == "folders" else {None: root}
    fractions = {} if split == "folders" else split
    scanned.splits = {name: [] for name in fractions or tops if name}
    for name, top in tops.items():
        for sample in _samples(root, top, wanted, on_error, scanned):
            scanned.splits[name or split_of(sample.key, fractions)].append(sample)
    if not any(scanned.splits.values()):
        raise ValueError(_nothing_found(root, wanted, scanned))
    for samples in scanned.splits.values():
        samples.sort(key=lambda sample: (stable_hash("order", sample.key), sample.key))
    return scanned


def _split_folders(root: Path) -> dict[str | None, Path]:
    names = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    if not names or not set(names) <= set(SPLIT_FOLDERS) or not all((root / name).is_dir() for name in names):
        found = ", ".join(names[:10]) or "nothing"
        raise ValueError(f"split 'folders' needs a top level of only {', '.join(SPLIT_FOLDERS)} folders; {root} has: {found}.")
    return {name: root / name for name in SPLIT_FOLDERS if name in names}


def _samples(root: Path, top: Path, wanted: set[str] | None, on_error: str, scanned: ScannedFolder) -> Iterator[SourceSample]:
    groups: dict[str, dict[str, SourceFile]] = {}
    for path in _files(top):
        stem, extension = os.path.splitext(path.relative_to(top).as_posix())
        name = extension[1:].lower()
        if (wanted is not None and name not in wanted) or (wanted is None and not _FIELD_NAME.fullmatch(name)):
            scanned.ignored[name] += 1
            continue
        try:
            _add(groups.setdefault(stem, {}), name, path)
        except FileError as error:
            if on_error == "raise":
                raise
            scanned.problems.append(str(error))
    keys: dict[str, str] = {}
    for stem, files in groups.items():
        if files:
            key = clean_key(stem)
            if keys.setdefault(key, stem) != stem:
                raise ValueError(f"{keys[key]!r} and {stem!r} in {top} have the same key {key!r}: rename one.")
            yield _sample(root, key, stem, files)


def _sample(root: Path, key: str, stem: str, files: dict[str, SourceFile]) -> SourceSample:
    parts = PurePosixPath(stem).parts
    first = Path(files[min(files)].path).relative_to(root).as_posix()
    return SourceSample(key=key, source=first, label=parts[0] if len(parts) > 1 else None, files=files)


def _add(files: dict[str, SourceFile], name: str, path: Path) -> None:
    if not _FIELD_NAME.fullmatch(name):
        raise FileError(f"{path}: the extension {name!r} may only have letters, digits, '_', '+' and '-'.")
    if name in files:
        raise FileError(f"{path}: the sample already has a field {name!r}, from {files[name].path}.")
    try:
        status = path.stat()
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}.") from None
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"{path}: not a plain file.")
    if status.st_size == 0:
        raise FileError(f"{path}: the file is empty.")
    files[name] = SourceFile(str(path), status.st_size, status.st_mtime_ns)


def _files(top: Path) -> Iterator[Path]:
    """Yield the files in a fixed order, following links to folders once."""
    visited = set()
    for folder, subfolders, names in os.walk(top, followlinks=True, onerror=_unreadable):
        real = os.path.realpath(folder)
        subfolders[:] = [] if real in visited else sorted(name for name in subfolders if not name.startswith("."))
        names = [] if real in visited else names
        visited.add(real)
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _unreadable(error: OSError) -> None:
    raise FileError(f"{error.filename}: {error.strerror}.")


def _read_file(file: SourceFile) -> bytes:
    try:
        data = Path(file.path).read_bytes()
    except OSError as error:
        raise FileError(f"{file.path}: {error.strerror}.") from None
    if len(data) != file.size:
        raise FileError(f"{file.path}: had {file.size} bytes when the folder was scanned, now {len(data)}.")
    return data


def _nothing_found(root: Path, wanted: set[str] | None, scanned: ScannedFolder) -> str:
    asked = "with an extension" if wanted is None else f"with extension {', '.join(sorted(wanted))}"
    there = ", ".join(f"{name or 'none'} ({count})" for name, count in sorted(scanned.ignored.items()))
    problems = f"; {len(scanned.problems)} unusable, the first: {scanned.problems[0]}" if scanned.problems else ""
    return f"{root} has no usable files {asked}; extensions there: {there or 'no files'}{problems}"
