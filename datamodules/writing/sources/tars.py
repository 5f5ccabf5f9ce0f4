"""Samples of existing webdataset tars, to be written into other shards: byte ranges, nothing is unpacked."""

from __future__ import annotations

import dataclasses
import glob
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from braceexpand import braceexpand

from multimodal.datamodules.shards.contents import METADATA, metadata_of
from multimodal.datamodules.shards.index import FILE_NAME, ShardIndex
from multimodal.datamodules.shards.keys import clean_key
from multimodal.datamodules.shards.members import Member, members
from multimodal.datamodules.shards.reader import split_name
from multimodal.datamodules.writing.sources.field_names import COMPOUND_NAME
from multimodal.datamodules.writing.sources.samples import ByteRange, FileError, FileSample, SourceFile
from multimodal.datamodules.writing.sources.scan import OnError, Scan

_OF_WEBDATASET = re.compile(r"(.*/)?__[^/]*__(/.*)?")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_DAMAGE = (OSError, tarfile.TarError, ValueError, OverflowError, MemoryError)  # the last three: numbers in damaged headers


def find_tars(patterns: Sequence[str]) -> list[tuple[Path, str | None]]:
    """Return (tar, the split that an index beside it says; None without one), each once.

    Args:
        patterns: tars, or folders of them; ``{000..009}``, ``*`` and ``?`` stand for several.

    Raises:
        ValueError: a pattern stands for nothing, or for a command.
    """
    found: dict[Path, str | None] = {}
    for pattern in patterns:
        if re.match(r"\s*pipe:", pattern) or "|" in pattern:
            raise ValueError(f"{pattern!r} asks for a command to be run: refused. Name a folder or a tar.")
        paths = [Path(path) for plain in braceexpand(pattern) for path in (sorted(glob.glob(plain)) if glob.has_magic(plain) else [plain])]
        if not paths:
            raise ValueError(f"{pattern} stands for no file.")
        for path in paths:
            found.update(_of_folder(path) if path.is_dir() else {path: None})
    return list(found.items())


def _of_folder(folder: Path) -> dict[Path, str | None]:
    if (folder / FILE_NAME).is_file():
        return {folder / shard.path: split for split, shards in ShardIndex.load(folder).splits.items() for shard in shards}
    tars: dict[Path, str | None] = dict.fromkeys(sorted(folder.glob("*.tar")))
    if not tars:
        raise ValueError(f"{folder} holds no tars.")
    return tars


def scan_tars(
    patterns: Sequence[str], extensions: Sequence[str] | None = None, label_field: str | None = None, on_error: OnError = "raise"
) -> Scan:
    """Find the samples of tars, grouped as webdataset does: neighbours with the same name up to the first dot of the last part.

    The fields stay as they are. Keys that are not safe are cleaned. The splits of an index beside the tars stay.

    Args:
        patterns: tars, or folders of them; ``{000..009}``, ``*`` and ``?`` stand for several.
        extensions: fields to take, by the last part of their name; None: all.
        label_field: a field, or else an entry of the metadata, whose text is to be the label of the metadata; None: they stay as they are.
        on_error: whether a sample with a link, a device, a field twice or a bad name, or a damaged tar, stops the scan or is left out.

    Raises:
        ValueError: no such tar, or two samples with one key.
        FileError: a member cannot be used.
    """
    scan = Scan("tars")
    wanted = None if extensions is None else {METADATA, *(extension.lower().lstrip(".") for extension in extensions)}
    seen: dict[tuple[str | None, str], str] = {}
    for path, split in find_tars(patterns):
        for sample in _samples(path, wanted, on_error, scan):
            if (split, sample.key) in seen:
                raise ValueError(f"{path}: the key {sample.key!r} is there already, in {seen[split, sample.key]}.")
            seen[split, sample.key] = str(path)
            scan.add(_labelled(sample, label_field), split)
    if not scan.samples:
        problem = f"; the first problem: {scan.problems[0]}" if scan.problems else ""
        raise ValueError(f"{', '.join(patterns)}: no samples to take{problem}.")
    return scan


def _samples(path: Path, wanted: set[str] | None, on_error: OnError, scan: Scan) -> Iterator[FileSample]:
    try:
        file = SourceFile.at(path)
        with path.open("rb") as opened:
            _check_plain(path, opened.read(8))
            for key, group in _groups(opened.fileno(), scan):
                try:
                    fields = _fields(path, key, group)
                except FileError as error:
                    scan.refuse(str(error), on_error)
                    continue
                taken = {name: member for name, member in fields.items() if wanted is None or name.rpartition(".")[-1] in wanted}
                scan.ignored.update(name for name in fields if name not in taken)
                if set(taken) - {METADATA}:
                    pieces = {name: ByteRange(file, member.offset, member.size) for name, member in taken.items()}
                    yield FileSample(clean_key(key), "", None, pieces)
    except _DAMAGE as error:
        scan.refuse(str(error) if isinstance(error, FileError) else f"{path}: not a complete tar ({error}).", on_error)


def _check_plain(path: Path, start: bytes) -> None:
    for signature, name in _COMPRESSED.items():
        if start.startswith(signature):
            raise FileError(f"{path}: compressed with {name}; samples cannot be found in it without unpacking: decompress it first.")


def _groups(descriptor: int, scan: Scan) -> Iterator[tuple[str, list[tuple[str, Member]]]]:
    """Yield key and (field, member) of the complete samples: the last one of a tar that is cut off is not."""
    key, group = "", list[tuple[str, Member]]()
    for member in members(descriptor):
        name = re.sub(r"^(\./)+", "", member.name)
        last = name.rpartition("/")[-1]
        if _OF_WEBDATASET.fullmatch(name) or last.startswith("."):
            scan.ignored[""] += 1
            continue
        own, field = split_name(name)
        if group and own != key:
            yield key, group
            group = []
        key = own
        group.append((field, member))
    if group:
        yield key, group


def _fields(path: Path, key: str, group: list[tuple[str, Member]]) -> dict[str, Member]:
    fields: dict[str, Member] = {}
    for name, member in group:
        if not member.plain:
            raise FileError(f"{path}, key {key!r}, field {name!r}: not a plain file: links, devices and sparse files are refused.")
        if not COMPOUND_NAME.fullmatch(name):
            raise FileError(f"{path}, key {key!r}: the field {name!r} needs letters, digits, '_', '+' and '-', and dots between them.")
        if name in fields:
            raise FileError(f"{path}, key {key!r}, field {name!r}: the field is there twice.")
        fields[name] = member
    return fields


def _labelled(sample: FileSample, label_field: str | None) -> FileSample:
    if label_field is None:
        return sample
    if label_field in sample.files:
        label = sample.files[label_field].read().decode("utf-8", "replace").strip()
        return dataclasses.replace(sample, overrides={"label": label})
    own = sample.files.get(METADATA)
    content = metadata_of(own.read()) if own else {}
    if label_field not in content:
        raise ValueError(f"the sample {sample.key!r} has no field and no metadata {label_field!r} for its label.")
    return dataclasses.replace(sample, overrides={"label": str(content[label_field])})
