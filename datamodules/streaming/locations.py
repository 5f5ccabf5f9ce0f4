"""Where shards are: folders and tars, local or remote, by name, braces or globs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from braceexpand import braceexpand

from multimodal.datamodules.shards.contents import METADATA, found_classes, found_tags, metadata_of
from multimodal.datamodules.shards.index import FILE_NAME, FieldInfo, ShardIndex, ShardInfo, mime_type
from multimodal.datamodules.shards.reader import RawSample, ShardReader

_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def open_sources(names: Sequence[str]) -> list[ShardIndex]:
    """Return the index of each source.

    Args:
        names: folders with an index, or tars without one; ``{000..009}``, ``*`` and ``?`` stand for several; local paths, or URLs
            that fsspec can open (``s3://``, ``gs://``, ``https://``). The folders that a name stands for are sources of their own, its tars
            together are one. Tars without an index must be local; they are looked through once, and belong to the split that the name
            of the file says, else to "train".

    Raises:
        ValueError: a name stands for nothing, or asks for a command to be run, or an index cannot be read.
    """
    return [index for name in names for index in _open(name)]


def open_source(name: str) -> ShardIndex:
    """Return the index of the one source that a name stands for.

    Args:
        name: as in ``open_sources``.

    Raises:
        ValueError: as there; or it stands for several.
    """
    source, *others = open_sources([name])
    if others:
        raise ValueError(f"{name} stands for {1 + len(others)} sources: name them one by one.")
    return source


def _open(name: str) -> list[ShardIndex]:
    if re.match(r"\s*pipe:", name) or "|" in name:
        raise ValueError(f"{name!r} asks for a command to be run: refused. Name a folder, a tar or a URL.")
    paths = [path for pattern in braceexpand(name) for path in _matches(pattern)]
    if not paths:
        raise ValueError(f"{name} stands for no folder or file.")
    tars = [path for path in paths if path.endswith(".tar")]
    folders = [_remote(path) if "://" in path else ShardIndex.load(path) for path in paths if not path.endswith(".tar")]
    return [*folders, *([_scan(tars)] if tars else [])]


def _matches(pattern: str) -> list[str]:
    """Return the paths that a pattern with ``*``, ``?`` or ``[]`` stands for, sorted; a plain path as it is."""
    if not re.search(r"[*?\[]", pattern):
        return [pattern]
    if "://" not in pattern:
        import glob

        return sorted(glob.glob(pattern))
    from fsspec.core import url_to_fs

    system, path = url_to_fs(pattern)
    return sorted(system.unstrip_protocol(found) for found in system.glob(path))


def _remote(url: str) -> ShardIndex:
    import fsspec

    url = url.rstrip("/")
    path = f"{url}/{FILE_NAME}"
    try:
        with fsspec.open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist.") from None
    except Exception as error:  # each file system of fsspec has errors of its own
        raise ValueError(f"{path} cannot be fetched: {type(error).__name__}: {error}") from error
    return replace(ShardIndex.parse(data, path), url=url)


def _scan(tars: Sequence[str]) -> ShardIndex:
    """Return the index of tars that have none; they may lie in different folders."""
    remote = [tar for tar in tars if "://" in tar]
    if remote:
        raise ValueError(f"{remote[0]}: tars without an index can only be read where they are local. Write an index with `shards write`.")
    splits: dict[str, list[ShardInfo]] = {}
    fields, sizes, classes, tags = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for tar in tars:
        if not Path(tar).is_file():
            raise ValueError(f"{tar} is not a file.")
        reader = ShardReader(tar, 0)
        if not len(reader):
            raise ValueError(f"{tar} holds no samples{reader.damage}.")
        for position, entry in enumerate(reader.entries):
            for name, (_, size) in entry.fields.items():
                fields[name] += 1
                sizes[name] += size
            metadata = _metadata(reader, position)
            classes.update(found_classes(metadata))
            tags.update(found_tags(metadata))
        splits.setdefault(_split_of(tar), []).append(ShardInfo(str(Path(tar).absolute()), len(reader), Path(tar).stat().st_size, ""))
        reader.close()
    info = {name: FieldInfo(count, sizes[name], mime_type(name)) for name, count in fields.items()}
    return ShardIndex(splits, info, dict(classes), tag_counts=dict(tags), root=Path("/"))


def _split_of(tar: str) -> str:
    words = re.split(r"[^a-z]+", Path(tar).stem.lower())
    return next((_SPLITS[word] for word in words if word in _SPLITS), "train")


def _metadata(reader: ShardReader, position: int) -> dict[str, Any]:
    """Return the metadata of a sample; none where it has none, or bad ones."""
    sample = reader.read(position, {METADATA})
    try:
        return metadata_of(sample.fields[METADATA]) if isinstance(sample, RawSample) and METADATA in sample.fields else {}
    except ValueError:
        return {}
