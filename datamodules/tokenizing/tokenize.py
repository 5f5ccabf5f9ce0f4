"""Tokenize shards once: new shards with the same keys in the same order, all fields, and the ids of a frozen tokenizer beside them.

What is finished is noted in a journal, so that the same command after an interruption goes on where it stopped, to the same bytes; the
index is written last, and a folder without one is unfinished.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from multimodal.atomic import remove_temporary
from multimodal.datamodules.jobs.folder_lock import folder_lock
from multimodal.datamodules.jobs.journal import Journal
from multimodal.datamodules.jobs.parts import Finished, Part, merge_parts
from multimodal.datamodules.jobs.run_jobs import Advance, Engine, run_jobs
from multimodal.datamodules.shards.contents import Contents, total
from multimodal.datamodules.shards.index import FILE_NAME, ShardIndex, ShardInfo, StoredIds, field_info
from multimodal.datamodules.shards.shard_file import file_sha256
from multimodal.datamodules.tokenizing.tokenized_shard import Parts, Recipe, ShardJob, ShardTokenizer, TokenizeSettings, build_parts
from multimodal.datamodules.writing.writer import WriteResult, written_index
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


@dataclass(frozen=True)
class _Planned:
    """A shard to make.

    Args:
        split: that it belongs to.
        job: what to do.
        plan: a hash of all that decides its bytes.
    """

    split: str
    job: ShardJob
    plan: str

    @property
    def path(self) -> str:
        """Its name in the new folder."""
        return self.job.target.name


@dataclass(frozen=True)
class _Work:
    """All that is to be made: the shards, what the index will say, and a hash of both."""

    source: ShardIndex
    root: Path
    recipe: Recipe
    settings: TokenizeSettings
    stored: StoredIds
    shards: Sequence[_Planned]

    @property
    def plan(self) -> str:
        return hashlib.sha256("\n".join(shard.plan for shard in self.shards).encode()).hexdigest()


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
    stored = replace(stored, ragged=_is_ragged(shards, ShardTokenizer(recipe, settings)))
    work = _Work(source, root, recipe, settings, stored, shards)
    own = [shard for place, shard in enumerate(shards) if options.part.takes(place)]
    if not options.overwrite and (index := _already_there(work)) is not None:
        return WriteResult(index, [], len(own), [])
    root.mkdir(parents=True, exist_ok=True)
    with folder_lock(root, options.part.lock_name):
        remove_temporary(root, {shard.path for shard in own})
        journal = Journal(root, options.part.journal_name)
        _retire_index(root, journal)
        finished, kept = _finish(work, own, journal, options, listener)
        index, missing = _conclude(work, finished, journal, options.part)
    return WriteResult(index, total(finished[shard.path][1] for shard in own).problems, kept, missing)


def _already_there(work: _Work) -> ShardIndex | None:
    """Return the index if the shards were made before.

    Raises:
        ValueError: there are other shards.
    """
    if not (work.root / FILE_NAME).exists():
        return None
    index = written_index(work.root, work.plan)
    if index is None:
        reason = "shards that are damaged, or were made from others or with other settings"
        raise ValueError(f"{work.root} holds {reason}: give another --to, or replace them with --overwrite.")
    return index


def _finish(work: _Work, own: Sequence[_Planned], journal: Journal, options: RunOptions, listener: Advance | None) -> tuple[Finished, int]:
    """Return the shards of this part, made now or kept, and the number of the latter."""
    finished = {shard.path: found for shard in own if (found := journal.find(shard.path, shard.plan))}
    kept = len(finished)
    if listener:
        listener(sum(info.samples for info, _ in finished.values()), sum(info.bytes for info, _ in finished.values()))
    todo = [shard for shard in own if shard.path not in finished]
    jobs, function = [shard.job for shard in todo], ShardTokenizer(work.recipe, work.settings)
    for number, result in run_jobs(function, jobs, options.num_workers, options.engine, listener):
        journal.add(todo[number].plan, *result)
        finished[todo[number].path] = result
    return finished, kept


def _conclude(work: _Work, finished: Finished, journal: Journal, part: Part) -> tuple[ShardIndex | None, list[int]]:
    """Write the index if all parts are complete, and return it, else the numbers of the missing parts."""
    replaced = set(journal.replaced)
    if part.count > 1:
        part.save(work.root, work.plan, finished, sorted(replaced))
        finished, replaced, missing = merge_parts(part, work.root, work.plan)
        if missing:
            return written_index(work.root, work.plan), missing  # another part may just have written it
    _index(work, finished).save(work.root)
    for path in replaced - set(finished):
        (work.root / path).unlink(missing_ok=True)
    for one in part.others():
        one.remove(work.root)
    return ShardIndex.load(work.root), []


def _index(work: _Work, finished: Finished) -> ShardIndex:
    splits: dict[str, list[ShardInfo]] = {split: [] for split in work.source.splits}
    for shard in work.shards:
        if finished[shard.path][0].samples:
            splits[shard.split].append(finished[shard.path][0])
    counts: Contents = total(finished[shard.path][1] for shard in work.shards)
    settings = work.settings
    how = {"batch_size": settings.batch_size, "device": settings.device, "drop_fields": list(settings.drop_fields)}
    before = work.source.writer
    writer = {**before, "tokenize": {**before.get("tokenize", {}), settings.name: how}, "plan": work.plan}
    ids = {**work.source.ids, settings.name: work.stored}
    return ShardIndex(splits, field_info(counts.fields, counts.field_bytes), counts.class_counts, ids, writer)


def _retire_index(root: Path, journal: Journal) -> None:
    """Remove an index, whose hashes are about to become wrong; the journal notes the shards that it lists."""
    try:
        earlier = {shard.path for shards in ShardIndex.load(root).splits.values() for shard in shards}
    except ValueError:
        earlier = set()  # none, or one that nobody can use
    journal.replace(sorted(earlier | {path for path in journal.lines if (root / path).is_file()}))
    (root / FILE_NAME).unlink(missing_ok=True)


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


def _is_ragged(planned: Sequence[_Planned], tokenizer: ShardTokenizer) -> bool:
    """Return whether items are ragged, from the first sample that has the modality. What does not fit together shows here, before the work.

    Raises:
        ValueError: no sample can be tokenized.
    """
    last: SampleError | None = None
    for shard in planned:
        reader = shard.job.reader()
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


def _plan(source: ShardIndex, root: Path, stored: StoredIds, settings: TokenizeSettings) -> list[_Planned]:
    """Return the shards to make, in the order of the index.

    Raises:
        ValueError: two shards of the source have the same name.
    """
    planned = []
    for split, shards in source.splits.items():
        for info in shards:
            location = source.location(info)
            job = ShardJob(location, bool(source.url), info, split in settings.train_splits, root / Path(info.path).name)
            sha256 = info.sha256 or file_sha256(Path(location))
            said = [sha256, info.samples, asdict(stored), job.train, asdict(settings)]
            planned.append(_Planned(split, job, hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()))
    names = Counter(shard.job.target.name for shard in planned)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"the source has several shards of the name {twice[0]}: tokenize its folders one by one.")
    return planned


def _class_path(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
