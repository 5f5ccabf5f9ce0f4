"""What a folder of shards holds, as written in its ``index.json``."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from multimodal.atomic import atomic_file
from multimodal.datamodules.shards.index_schema import check_index

VERSION = 2
FILE_NAME = "index.json"
_TYPES = mimetypes.MimeTypes()  # without the tables of the machine, which differ
for _name, _type in {
    "npy": "application/x-numpy",
    "jsonl": "application/jsonl",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "webp": "image/webp",
}.items():
    _TYPES.add_type(_type, f".{_name}")  # Python 3.11 does not know them


@dataclass(frozen=True)
class ShardInfo:
    """One shard.

    Args:
        path: relative to the folder of the index, with forward slashes.
        samples: number of samples in it.
        bytes: size of the file.
        sha256: hash of the file, in hex.
    """

    path: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class FieldInfo:
    """One field, over all samples of a folder.

    Args:
        samples: number of samples that have it.
        bytes: in all of them together.
        type: MIME type that its name stands for; "application/octet-stream" for an unknown name.
    """

    samples: int
    bytes: int
    type: str


@dataclass(frozen=True)
class StoredIds:
    """Ids that a frozen tokenizer gave to one modality of the samples; see ``multimodal shards tokenize``.

    Args:
        tokenizer: its fingerprint.
        tokenizer_class: its class path, for the record.
        vocab_sizes: number of ids of each of its fields (codebooks).
        transform: fingerprint of the transform that made the views which were tokenized.
        crops: field names hold views 0 to ``crops - 1``, each of them another crop; 1 where views do not differ.
        seed: of the crops.
        train: splits whose views are crops for training; the views of other splits are those of evaluation.
        ragged: whether the number of ids differs from sample to sample.
        libraries: name -> version of the libraries that made the views; others may make slightly different ones.
    """

    tokenizer: str
    tokenizer_class: str
    vocab_sizes: Sequence[int]
    transform: str
    crops: int = 1
    seed: int = 0
    train: Sequence[str] = ()
    ragged: bool = False
    libraries: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardIndex:
    """The shards of a folder by split, and what is in them.

    Args:
        splits: split name -> its shards, in order.
        fields: field (file extension) -> what it holds, over all splits.
        class_counts: label name -> number of samples, over all splits.
        ids: modality name -> ids that are stored beside its data.
        writer: settings that the shards were written with.
        tag_counts: as ``class_counts``, of labels of which a sample may have several.
        root: the folder; set by ``load``, not saved.
        url: of the folder, where it is not local; set by ``parse``, not saved.
    """

    splits: Mapping[str, Sequence[ShardInfo]]
    fields: Mapping[str, FieldInfo]
    class_counts: Mapping[str, int] = field(default_factory=dict)
    ids: Mapping[str, StoredIds] = field(default_factory=dict)
    writer: Mapping[str, Any] = field(default_factory=dict)
    tag_counts: Mapping[str, int] = field(default_factory=dict)
    root: Path = field(default=Path(), compare=False)
    url: str = field(default="", compare=False)

    @property
    def classes(self) -> list[str]:
        """The label names, sorted."""
        return sorted(self.class_counts)

    @property
    def tags(self) -> list[str]:
        """The names of labels of which a sample may have several, sorted."""
        return sorted(self.tag_counts)

    def shards(self, split: str) -> Sequence[ShardInfo]:
        """Return the shards of a split; none where the folder has no such split."""
        return self.splits.get(split, ())

    def location(self, shard: ShardInfo) -> str:
        """Return path or URL of a shard."""
        return f"{self.url}/{shard.path}" if self.url else str(self.root / shard.path)

    def num_samples(self, split: str) -> int:
        """Return the number of samples of a split."""
        return sum(shard.samples for shard in self.shards(split))

    def save(self, folder: Path | str) -> Path:
        """Write ``index.json`` into the folder, atomically, and return its path."""
        content = {
            "version": VERSION,
            "splits": {name: [asdict(shard) for shard in shards] for name, shards in self.splits.items()},
            "fields": {name: asdict(info) for name, info in sorted(self.fields.items())},
            "classes": dict(sorted(self.class_counts.items())),
            "tags": dict(sorted(self.tag_counts.items())),
            "ids": {name: asdict(stored) for name, stored in sorted(self.ids.items())},
            "writer": dict(self.writer),
        }
        path = Path(folder) / FILE_NAME
        with atomic_file(path) as file:
            file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass"))
        return path

    @classmethod
    def load(cls, folder: Path | str) -> ShardIndex:
        """Read the index of a folder and check that its shards are there.

        Raises:
            ValueError: no index, a damaged one, one of another version, a shard outside the folder, or missing shards (all are named).
        """
        root = Path(folder)
        path = root / FILE_NAME
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            hint = "write shards with `multimodal shards write`, or finish an interrupted write by running it again"
            raise ValueError(f"{path} does not exist: {hint}.") from None
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error}.") from None
        index = replace(cls.parse(content, str(path)), root=root)
        shards = [shard for shards in index.splits.values() for shard in shards]
        missing = [shard.path for shard in shards if not (root / shard.path).is_file()]
        if missing:
            raise ValueError(f"{len(missing)} of {len(shards)} shards of {path} are missing: {', '.join(missing)}.")
        return index

    @classmethod
    def parse(cls, data: bytes, path: str) -> ShardIndex:
        """Return the index that a file holds.

        Args:
            data: the bytes of the file.
            path: of the file, for messages.

        Raises:
            ValueError: damaged, of another version, or with a shard outside the folder.
        """
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} cannot be read: {error}.") from None
        version = content.get("version") if isinstance(content, dict) else None
        if version != VERSION:
            raise ValueError(f"{path} has version {version!r}, this program reads version {VERSION}: write the shards again.")
        try:
            index = cls(
                splits={name: [ShardInfo(**shard) for shard in shards] for name, shards in content["splits"].items()},
                fields={name: FieldInfo(**info) for name, info in content["fields"].items()},
                class_counts=dict(content["classes"]),
                tag_counts=dict(content.get("tags", {})),  # which older indexes do not have
                ids={name: StoredIds(**stored) for name, stored in content["ids"].items()},
                writer=dict(content["writer"]),
            )
            check_index(index)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}): write the shards again.") from None
        for shards in index.splits.values():
            for shard in shards:
                _check_inside(path, shard.path)
        return index


def field_info(fields: Mapping[str, int], field_bytes: Mapping[str, int]) -> dict[str, FieldInfo]:
    """Return field -> what it holds, from the counts of samples and bytes."""
    return {name: FieldInfo(samples, field_bytes[name], mime_type(name)) for name, samples in fields.items()}


def mime_type(name: str) -> str:
    """Return the MIME type that the name of a field stands for; the last extension of a compound name decides."""
    return _TYPES.guess_type(f"x.{name}", strict=False)[0] or "application/octet-stream"


def _check_inside(index: str, shard: str) -> None:
    path = PurePosixPath(shard)
    if path.is_absolute() or ".." in path.parts or "\\" in shard or PureWindowsPath(shard).drive:
        raise ValueError(f"{index} names the shard {shard!r}, which lies outside its folder: refused.")
