"""Tokenize shards once: new shards with the same keys in the same order, all fields, and the ids of a frozen tokenizer beside them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from multimodal.datamodules.jobs.folder_run import FolderRun, WriteResult, written_index
from multimodal.datamodules.jobs.parts import Part
from multimodal.datamodules.jobs.run_jobs import Advance, Engine
from multimodal.datamodules.shards.index import FILE_NAME, ShardIndex, StoredIds
from multimodal.datamodules.shards.shard_file import file_sha256
from multimodal.datamodules.tokenizing.rewritten_shard import PlannedJob
from multimodal.datamodules.tokenizing.tokenized_shard import Parts, Recipe, ShardTokenizer, TokenizeSettings, build_parts
from multimodal.errors import SampleError
from multimodal.fingerprint import library_versions, transform_fingerprint


@dataclass(frozen=True)
class RunOptions:
    """Who does the work; it changes no byte.

    Args:
        num_workers: processes; 0: this one.
        engine: where they run; see ``run_jobs``.
        part: which shards this run makes.
        overwrite: whether finished shards in the folder are replaced, whatever they are.
    """

    num_workers: int = 0
    engine: Engine = "local"
    part: Part = field(default_factory=Part)
    overwrite: bool = False


def tokenize_shards(
    source: ShardIndex,
    folder: Path | str,
    recipe: Recipe,
    settings: TokenizeSettings,
    options: RunOptions | None = None,
    listener: Advance | None = None,
) -> WriteResult:
    """Write, for every shard of a source, a shard of the same name with ids, and the index.

    Ids of other modalities that the source has already stay; older ids of the same modality are replaced.

    Args:
        source: what is tokenized, all splits.
        folder: made if it is not there; one that holds the result already stays as it is.
        recipe: transform and tokenizer.
        settings: how.
        options: who does it.
        listener: told of samples and bytes that are done.

    Raises:
        SampleError: a sample cannot be read, or cannot be decoded and ``on_error`` is "raise".
        ValueError: no sample has the modality, the settings do not fit the source, the folder holds other shards, or another
            process writes there.
        OSError: the disk is full (the message names the shard), or a worker process died.
    """
    options, root = options or RunOptions(), Path(folder)
    parts = build_parts(recipe, settings.device)
    _check(source, root, parts, settings)
    stored = _stored_ids(parts, settings)
    shards = _plan(source, root, stored, settings)
    tokenizer = ShardTokenizer(recipe, settings)
    outline = _outline(source, replace(stored, ragged=_is_ragged(shards, tokenizer)), settings)
    plan = hashlib.sha256("\n".join(shard.plan for shard in shards).encode()).hexdigest()
    if not options.overwrite and (index := _already_there(root, plan)) is not None:
        return WriteResult(index, [], sum(map(options.part.takes, range(len(shards)))), [])
    return FolderRun(root, plan, outline, shards, tokenizer, options.num_workers, options.engine, options.part).run(listener)


def _already_there(root: Path, plan: str) -> ShardIndex | None:
    """Return the index if the shards were made before.

    Raises:
        ValueError: there are other shards.
    """
    if not (root / FILE_NAME).exists():
        return None
    index = written_index(root, plan)
    if index is None:
        reason = "shards that are damaged, or were made from others or with other settings"
        raise ValueError(f"{root} holds {reason}: give another --to, or replace them with --overwrite.")
    return index


def _outline(source: ShardIndex, stored: StoredIds, settings: TokenizeSettings) -> ShardIndex:
    """Return what the index will say, without shards and counts."""
    how = {"batch_size": settings.batch_size, "device": settings.device, "drop_fields": list(settings.drop_fields)}
    writer = {**source.writer, "tokenize": {**source.writer.get("tokenize", {}), settings.name: how}}
    return ShardIndex({split: () for split in source.splits}, {}, ids={**source.ids, settings.name: stored}, writer=writer)


def _check(source: ShardIndex, root: Path, parts: Parts, settings: TokenizeSettings) -> None:
    """Refuse settings that do not fit the source."""
    there, read = source.fields.keys(), parts.transform.extensions
    if not set(read) & there:
        raise ValueError(
            f"modality {settings.name!r} reads the fields {', '.join(read)}, but the shards have only {', '.join(sorted(there)) or 'none'}."
        )
    if not source.url and source.root.resolve() == root.resolve():
        raise ValueError(f"{root} is the source: write the new shards to another folder.")
    if unknown := sorted(set(settings.drop_fields) - there):
        raise ValueError(f"drop_fields: the shards have no {', '.join(unknown)}; fields there: {', '.join(sorted(there))}.")
    if needed := sorted(set(settings.drop_fields) & set(read)) if not parts.values_are_ids else []:
        raise ValueError(f"drop_fields: {', '.join(needed)} cannot go, the encoder reads it beside the ids of {settings.name!r}.")
    if unknown := sorted(set(settings.train_splits) - source.splits.keys()):
        raise ValueError(f"train_splits: the shards have no split {', '.join(unknown)}; splits there: {', '.join(source.splits)}.")


def _stored_ids(parts: Parts, settings: TokenizeSettings) -> StoredIds:
    return StoredIds(
        tokenizer=parts.tokenizer.fingerprint(),
        tokenizer_class=_class_path(parts.tokenizer),
        vocab_sizes=list(parts.tokenizer.vocab_sizes),
        transform=transform_fingerprint(parts.transform),
        crops=settings.crops,
        seed=settings.seed,
        train=list(settings.train_splits),
        libraries=library_versions(parts.transform),
    )


def _is_ragged(planned: Sequence[PlannedJob], tokenizer: ShardTokenizer) -> bool:
    """Return whether items are ragged, from the first sample that has the modality. What does not fit together shows here, before the work.

    Raises:
        ValueError: no sample can be tokenized.
    """
    last: SampleError | None = None
    for shard in planned:
        reader = shard.reader()
        for position in range(len(reader)):
            raw = reader.read(position)
            if isinstance(raw, SampleError):
                raise raw
            try:
                views = tokenizer.views(raw, train=False)
            except SampleError as error:
                last = error
                continue
            if views:
                tokenizer.npy(tokenizer.encode(views)[0])
                return views[0].ragged
    raise ValueError(f"no sample can be tokenized{'.' if last is None else f'; the last problem: {last}'}")


def _plan(source: ShardIndex, root: Path, stored: StoredIds, settings: TokenizeSettings) -> list[PlannedJob]:
    """Return the shards to make, in the order of the index.

    Raises:
        ValueError: two shards of the source have the same name.
    """
    planned = []
    for split, shards in source.splits.items():
        for info in shards:
            location = source.location(info)
            train, target = split in settings.train_splits, root / Path(info.path).name
            said = [info.sha256 or file_sha256(Path(location)), info.samples, asdict(stored), train, asdict(settings)]
            plan = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
            planned.append(PlannedJob(location, bool(source.url), info, train, target, split, plan))
    names = Counter(shard.path for shard in planned)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"the source has several shards of the name {twice[0]}: tokenize its folders one by one.")
    return planned


def _class_path(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
