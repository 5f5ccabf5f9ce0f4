"""Tokenize one shard: make the views that training will make, run the tokenizer over them in batches, write the ids beside the data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from multimodal.batch import Item, Sample, collate
from multimodal.datamodules.shards.contents import Contents
from multimodal.datamodules.shards.index import ShardInfo
from multimodal.datamodules.shards.index_schema import MOST_VIEWS
from multimodal.datamodules.shards.reader import RawSample
from multimodal.datamodules.tokenizing.id_arrays import id_dtype, ids_to_npy
from multimodal.datamodules.tokenizing.rewritten_shard import ShardJob, one_thread, rewrite_shard
from multimodal.datamodules.tokenizing.stored_ids import crop_seed, ids_field, own_tokenizer
from multimodal.errors import SampleError
from multimodal.protocols import Tokenizer, Transform


@dataclass(frozen=True)
class TokenizeSettings:
    """How samples are tokenized.

    Args:
        name: of the modality.
        crops: number of views that are stored for a sample of the training splits, from 1 to 10,000.
        seed: of the crops, at least 0.
        train_splits: splits whose views are crops for training; samples of others get the one view of evaluation.
        batch_size: views that the tokenizer gets at once, at least 1.
        device: where the tokenizer runs: "cpu", where each process uses one thread, or "cuda".
        drop_fields: fields that the new shards leave out.
        on_error: whether a sample that cannot be decoded stops the run, or is written without ids and listed.

    Raises:
        ValueError: a setting outside its range, or a device that is not there.
    """

    name: str
    crops: int = 1
    seed: int = 0
    train_splits: tuple[str, ...] = ("train",)
    batch_size: int = 64
    device: str = "cpu"
    drop_fields: tuple[str, ...] = ()
    on_error: Literal["raise", "skip"] = "raise"

    def __post_init__(self) -> None:
        ids_field(self.name, 0)
        for setting, least in (("crops", 1), ("seed", 0), ("batch_size", 1)):
            if getattr(self, setting) < least:
                raise ValueError(f"{setting} must be at least {least}, got {getattr(self, setting)}.")
        if self.crops > MOST_VIEWS:
            raise ValueError(f"crops must be at most {MOST_VIEWS}, got {self.crops}.")
        if self.device.partition(":")[0] not in ("cpu", "cuda"):
            raise ValueError(f"device must be cpu or cuda, got {self.device!r}.")
        if self.device != "cpu" and not torch.cuda.is_available():
            raise ValueError(f"device {self.device!r}: this machine has no CUDA device that torch can use.")


@runtime_checkable
class Recipe(Protocol):
    """How to build a transform and a tokenizer; hashable, and picklable where several processes work. See ``TokenizerRecipe``."""

    def build(self) -> tuple[Transform, Tokenizer | None]:
        """Return the transform, and the tokenizer unless the transform owns it."""
        ...

    def __hash__(self) -> int:
        """Return a number; recipes that are equal build the same."""
        ...


class Parts(NamedTuple):
    """What a process needs: a transform, and a tokenizer on its device.

    Args:
        transform: makes the views.
        tokenizer: gives the ids.
        values_are_ids: whether the tokenizer is the transform's, and its work done there.
    """

    transform: Transform
    tokenizer: Tokenizer
    values_are_ids: bool


@lru_cache(maxsize=1)
def build_parts(recipe: Recipe, device: str = "cpu") -> Parts:
    """Return the parts that a recipe names; kept for the next shard of the process.

    Raises:
        ValueError: the recipe cannot be built, or names no tokenizer and the transform owns none.
    """
    transform, tokenizer = recipe.build()
    own = own_tokenizer(transform)
    chosen = tokenizer if tokenizer is not None else own
    if chosen is None:
        raise ValueError(f"{type(transform).__name__} owns no tokenizer: name one.")
    id_dtype(chosen.vocab_sizes)
    return Parts(transform, chosen.requires_grad_(False).eval().to(device), tokenizer is None)


class ShardTokenizer:
    """Tokenizes shards; the result depends on the shard and the arguments only.

    Args:
        recipe: transform and tokenizer, built when the first shard is there.
        settings: how.
    """

    def __init__(self, recipe: Recipe, settings: TokenizeSettings) -> None:
        self.recipe, self.settings = recipe, settings
        self._old_ids = re.compile(rf"{re.escape(settings.name)}\.\d+\.ids\.npy")

    def __call__(self, job: ShardJob) -> tuple[ShardInfo, Contents]:
        """Write the new shard: the same keys in the same order.

        Raises:
            SampleError: the source is damaged, or a sample cannot be decoded and ``on_error`` is "raise".
            OSError: the disk is full, or the source cannot be fetched.
        """
        with one_thread(self.settings.device), torch.inference_mode():
            return rewrite_shard(job, self.settings.batch_size, partial(self._batch, job.train))

    def _batch(self, train: bool, samples: Iterator[RawSample], problems: list[str]) -> Iterator[tuple[RawSample, dict[str, bytes]]]:
        """Yield samples and their fields, those with ids included."""
        raws, items = [], []
        for raw in samples:
            raws.append(raw)
            items.append(self._views_or_none(raw, train, problems))
        ids = iter(self.encode([item for views in items for item in views]))
        for raw, views in zip(raws, items, strict=True):
            kept = {name: data for name, data in raw.fields.items() if not self._dropped(name)}
            yield raw, kept | {ids_field(self.settings.name, view): self.npy(next(ids)) for view in range(len(views))}

    def _dropped(self, field: str) -> bool:
        return field in self.settings.drop_fields or self._old_ids.fullmatch(field) is not None

    def _views_or_none(self, raw: RawSample, train: bool, problems: list[str]) -> list[Item]:
        try:
            return self.views(raw, train)
        except SampleError as error:
            if self.settings.on_error == "raise":
                raise
            problems.append(str(error))
            return []

    def views(self, raw: RawSample, train: bool) -> list[Item]:
        """Return the views of a sample that are tokenized; none where it lacks the modality.

        Raises:
            SampleError: it cannot be decoded.
        """
        transform = build_parts(self.recipe, self.settings.device).transform
        field = next((extension for extension in transform.extensions if extension in raw.fields), None)
        if field is None:
            return []
        try:
            decoded = transform.decode(raw.fields[field])
            seeds = [crop_seed(self.settings.seed, raw.key, view) for view in range(self.settings.crops if train else 1)]
            return [_seen_by_tokenizer(transform(decoded, torch.Generator().manual_seed(seed), train)) for seed in seeds]
        except ValueError as error:
            raise SampleError(raw.shard, raw.key, field, str(error)) from error
        except Exception as error:
            error.add_note(f"while tokenizing shard {raw.shard}, key {raw.key!r}, field {field!r}")
            raise

    def encode(self, items: Sequence[Item]) -> list[Tensor]:
        """Return the ids of each item.

        Raises:
            ValueError: the items differ in shape, or the tokenizer does not give the same number of ids for each.
        """
        parts = build_parts(self.recipe, self.settings.device)
        if parts.values_are_ids:
            return [item.values for item in items]
        if items and items[0].ragged:  # alone: only so it is known which ids are whose
            return [self._encode(parts.tokenizer, [item]) for item in items]
        starts = range(0, len(items), self.settings.batch_size)
        return [ids for start in starts for ids in self._encode_alike(parts.tokenizer, items[start : start + self.settings.batch_size])]

    def _encode_alike(self, tokenizer: Tokenizer, items: Sequence[Item]) -> Sequence[Tensor]:
        ids = self._encode(tokenizer, items)
        if not len(ids) or len(ids) % len(items):
            raise ValueError(f"{type(tokenizer).__name__} gives {len(ids)} ids for {len(items)} items of equal shape.")
        return ids.split(len(ids) // len(items))

    def _encode(self, tokenizer: Tokenizer, items: Sequence[Item]) -> Tensor:
        name = self.settings.name
        joined = collate([Sample(str(number), {name: item}) for number, item in enumerate(items)]).items[name]
        return tokenizer.encode(*(tensor.to(self.settings.device) for tensor in joined.for_tokenizer)).cpu()

    def npy(self, ids: Tensor) -> bytes:
        """Return the bytes of the field that holds the ids of an item.

        Raises:
            ValueError: the ids do not fit the tokenizer's vocabularies.
        """
        return ids_to_npy(ids, build_parts(self.recipe, self.settings.device).tokenizer.vocab_sizes)


def _seen_by_tokenizer(item: Item) -> Item:
    """Return the item without the encoder's view: views wait for a batch, and need not all be kept."""
    return item if item.tokenizer_values is None else Item(item.tokenizer_values, ragged=item.ragged)
