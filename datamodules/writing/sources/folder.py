"""A folder of files as samples to write: which files belong together, their key, label and split.

Files with the same path up to the extension are the fields of one sample. The first sub-folder is the label.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from multimodal.datamodules.shards.keys import clean_key
from multimodal.datamodules.writing.sources.field_names import COMPOUND_NAME, FIELD_NAME, field_of, shared_extensions
from multimodal.datamodules.writing.sources.samples import FileError, FileSample, SourceFile
from multimodal.datamodules.writing.sources.scan import OnError, Scan, parse_pattern

SPLIT_FOLDERS = ("train", "val", "test")


@dataclass(frozen=True)
class FolderRules:
    """How the files of a folder become fields of samples.

    Args:
        split_folders: whether the top level is ``train/``, ``val/``, ``test/``.
        merge_folders: whether the first level says what kind of file lies there (``photos/cat/1.png``, ``sounds/cat/1.wav``): files with
            the same path below it are one sample. A field gets the folder's name in front where several folders have its extension.
        field_patterns: regular expressions with groups ``key`` and ``field``, for the path of a file below its top folder; the first that
            matches the whole path decides, other files go by their extension.
        extensions: the files to take, without dot; None: every file with an extension.
    """

    split_folders: bool = False
    merge_folders: bool = False
    field_patterns: Sequence[str] = ()
    extensions: Sequence[str] | None = None


@dataclass(frozen=True)
class _Found:
    """A file: its kind (the first folder, where these are merged), the stem of its sample, and its field."""

    place: str
    stem: str
    field: str
    path: Path


def scan_folder(folder: Path | str, rules: FolderRules | None = None, on_error: OnError = "raise") -> Scan:
    """Find the samples of a folder. Hidden files and folders are left out.

    Args:
        folder: the files; sub-folders are the classes.
        rules: how they become samples.
        on_error: whether an empty or unreadable file stops the scan or is left out and listed.

    Raises:
        ValueError: no such folder, no files to take, or a top level other than splits.
        FileError: a file cannot be used.
    """
    root, rules = Path(folder), rules or FolderRules()
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder.")
    scan = Scan("folder")
    wanted = None if rules.extensions is None else {extension.lower().lstrip(".") for extension in rules.extensions}
    matcher = _Matcher(rules, wanted)
    for split, top in (_split_folders(root) if rules.split_folders else {None: root}).items():
        for sample in _samples(root, top, matcher, on_error, scan):
            scan.add(sample, split)
    if not scan.samples:
        raise ValueError(_nothing_found(root, wanted, scan))
    return scan


def _split_folders(root: Path) -> dict[str | None, Path]:
    names = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    if not names or not set(names) <= set(SPLIT_FOLDERS) or not all((root / name).is_dir() for name in names):
        found = ", ".join(names[:10]) or "nothing"
        raise ValueError(f"split 'folders' needs a top level of only {', '.join(SPLIT_FOLDERS)} folders; {root} has: {found}.")
    return {name: root / name for name in SPLIT_FOLDERS if name in names}


class _Matcher:
    """From the path of a file to the sample and field that it belongs to."""

    def __init__(self, rules: FolderRules, wanted: set[str] | None) -> None:
        self.merge, self.wanted = rules.merge_folders, wanted
        self.patterns = [_field_pattern(pattern) for pattern in rules.field_patterns]

    def __call__(self, path: Path, top: Path) -> _Found | str:
        """Return what a file is, or its extension where it is not to be taken."""
        place, name = "", path.relative_to(top).as_posix()
        if self.merge:
            place, slash, name = name.partition("/")
            if not slash:
                raise FileError(f"{path}: lies outside of the sub-folders that --merge-folders puts together.")
        stem, field = self._split(name)
        extension = field.rpartition(".")[-1]
        taken = bool(FIELD_NAME.fullmatch(extension)) if self.wanted is None else extension in self.wanted
        if not taken or not stem:
            return extension
        if not COMPOUND_NAME.fullmatch(field):
            raise FileError(f"{path}: the field {field!r} may only have letters, digits, '_', '+' and '-', and dots between them.")
        return _Found(place, stem, field, path)

    def _split(self, name: str) -> tuple[str, str]:
        for pattern in self.patterns:
            match = pattern.fullmatch(name)
            if match:
                return match["key"] or "", (match["field"] or "").lower()
        stem, extension = os.path.splitext(name)
        return stem, extension[1:].lower()


def _field_pattern(pattern: str) -> re.Pattern[str]:
    compiled = parse_pattern("--field-pattern", pattern)
    if not {"key", "field"} <= set(compiled.groupindex):
        raise ValueError(rf"--field-pattern {pattern!r} needs groups key and field, as in '(?P<key>.+)_(?P<field>[a-z]+\.ogg)'.")
    return compiled


def _samples(root: Path, top: Path, matcher: _Matcher, on_error: OnError, scan: Scan) -> Iterator[FileSample]:
    found = list(_found(top, matcher, on_error, scan))
    extensions: dict[str, set[str]] = {}
    for file in found:
        extensions.setdefault(file.place, set()).add(file.field)
    shared = shared_extensions(extensions)
    groups: dict[str, dict[str, SourceFile]] = {}
    for file in found:
        _add(groups.setdefault(file.stem, {}), field_of(file.place, file.field, shared), file.path, on_error, scan)
    keys: dict[str, str] = {}
    for stem, files in groups.items():
        if files:
            key = clean_key(stem)
            if keys.setdefault(key, stem) != stem:
                raise ValueError(f"{keys[key]!r} and {stem!r} in {top} have the same key {key!r}: rename one.")
            yield _sample(root, key, stem, files)


def _found(top: Path, matcher: _Matcher, on_error: OnError, scan: Scan) -> Iterator[_Found]:
    for path in _files(top):
        try:
            file = matcher(path, top)
        except FileError as error:
            scan.refuse(str(error), on_error)
            continue
        if isinstance(file, str):
            scan.ignored[file] += 1
        else:
            yield file


def _sample(root: Path, key: str, stem: str, files: dict[str, SourceFile]) -> FileSample:
    parts = PurePosixPath(stem).parts
    first = Path(files[min(files)].path).relative_to(root).as_posix()
    return FileSample(key=key, source=first, label=parts[0] if len(parts) > 1 else None, files=files)


def _add(files: dict[str, SourceFile], name: str, path: Path, on_error: OnError, scan: Scan) -> None:
    try:
        if name in files:
            raise FileError(f"{path}: the sample already has a field {name!r}, from {files[name].path}.")
        files[name] = SourceFile.at(path)
    except FileError as error:
        scan.refuse(str(error), on_error)


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


def _nothing_found(root: Path, wanted: set[str] | None, scan: Scan) -> str:
    asked = "with an extension" if wanted is None else f"with extension {', '.join(sorted(wanted))}"
    there = ", ".join(f"{name or 'none'} ({count})" for name, count in sorted(scan.ignored.items()))
    problems = f"; {len(scan.problems)} unusable, the first: {scan.problems[0]}" if scan.problems else ""
    return f"{root} has no usable files {asked}; extensions there: {there or 'no files'}{problems}"
