"""Ids that a frozen tokenizer made beforehand: where they lie, which of them a sample uses, and whether they belong to a run.

``multimodal shards tokenize`` cuts a *view* from a sample as training would, with a seed that follows from the key and the number of the
view, and stores the ids of that view in a field of its own. Training makes the same view again from the same seed, so the encoder is
shown exactly what the tokenizer saw; with several views a sample has another crop in the next epoch, and after all of them the first again.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multimodal.datamodules.shards.index import ShardIndex, StoredIds
from multimodal.datamodules.shards.keys import stable_hash
from multimodal.datamodules.shards.reader import RawSample
from multimodal.datamodules.tokenizing.id_arrays import ids_from_npy
from multimodal.errors import SampleError
from multimodal.fingerprint import library_versions, transform_fingerprint
from multimodal.protocols import Tokenizer, Transform

_NAME = re.compile(r"[a-z0-9_-]+")
_SHOWN = 12


class LibraryWarning(UserWarning):
    """The libraries that make the views have other versions than when the ids were stored."""


def ids_field(name: str, view: int) -> str:
    """Return the field that holds the ids of a view of a modality.

    Raises:
        ValueError: the name of the modality cannot be part of the name of a field.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"modality {name!r}: ids are stored in a field of that name, so use lower-case letters, digits, _ and - only.")
    return f"{name}.{view}.ids.npy"


def crop_seed(seed: int, key: str, view: int) -> int:
    """Return the 63-bit seed that a view of a sample is drawn with."""
    return stable_hash("crop", seed, key, view) >> 1


def own_tokenizer(transform: Transform) -> Tokenizer | None:
    """Return the tokenizer of a transform whose values are ids already; None for one whose values a tokenizer has yet to read."""
    tokenizer = getattr(transform, "tokenizer", None)
    return tokenizer if isinstance(tokenizer, Tokenizer) else None


def check_stored(
    sources: Sequence[ShardIndex], transforms: Mapping[str, Transform], tokenizers: Mapping[str, str]
) -> dict[str, list[StoredIds | None]]:
    """Return, for each modality whose ids are stored, those of each source; None for a source without data of the modality.

    Args:
        sources: what is read.
        transforms: modality name -> transform of the run.
        tokenizers: modality name -> fingerprint of the run's tokenizer; modalities that are missing here use no stored ids.

    Raises:
        ValueError: ids were made by another tokenizer or from other views than the run's, or only some sources have them.
    """
    result: dict[str, list[StoredIds | None]] = {}
    for name in transforms.keys() & tokenizers.keys():
        stored = [source.ids.get(name) for source in sources]
        there = [(source, ids) for source, ids in zip(sources, stored, strict=True) if ids is not None]
        if not there:
            continue
        for source, ids in there:
            _check_fingerprints(name, source, ids, transforms[name], tokenizers[name])
        _check_agreement(name, sources, stored, transforms[name])
        result[name] = stored
    return result


def _check_fingerprints(name: str, source: ShardIndex, ids: StoredIds, transform: Transform, tokenizer: str) -> None:
    advice = "Give the model what the ids were made with, tokenize the shards again, or read the shards without ids"
    where = f"the ids of modality {name!r} in {_folder(source)}"
    if ids.tokenizer != tokenizer:
        raise ValueError(
            f"{where} were made by another tokenizer than the model's: fingerprint {ids.tokenizer[:_SHOWN]} ({ids.tokenizer_class}) there, "
            f"{tokenizer[:_SHOWN]} here. {advice}."
        )
    mine = transform_fingerprint(transform)
    if ids.transform != mine:
        raise ValueError(
            f"{where} belong to views of another transform than the model's: fingerprint {ids.transform[:_SHOWN]} there, "
            f"{mine[:_SHOWN]} ({type(transform).__name__}) here. {advice}."
        )
    now = library_versions(transform)
    changed = [f"{library} {old} then, {now.get(library, 'none')} now" for library, old in ids.libraries.items() if now.get(library) != old]
    if changed:
        told = f"{where} were made with other versions, which may cut slightly different views: {'; '.join(changed)}."
        warnings.warn(told, LibraryWarning, stacklevel=4)


def _check_agreement(name: str, sources: Sequence[ShardIndex], stored: Sequence[StoredIds | None], transform: Transform) -> None:
    """Refuse sources of which some samples would bring ids and others not: a batch needs all or none."""
    without = [
        source for source, ids in zip(sources, stored, strict=True) if ids is None and set(transform.extensions) & source.fields.keys()
    ]
    if without:
        having = next(source for source, ids in zip(sources, stored, strict=True) if ids is not None)
        raise ValueError(
            f"modality {name!r} has stored ids in {_folder(having)} but none in {_folder(without[0])}: tokenize both, or read both without."
        )
    kinds = {(tuple(sorted(ids.train)), ids.ragged): source for source, ids in zip(sources, stored, strict=True) if ids is not None}
    if len(kinds) > 1:
        told = "; ".join(f"{_folder(source)}: {', '.join(train) or 'none'}" for (train, _), source in kinds.items())
        raise ValueError(f"the sources store training views of modality {name!r} for different splits ({told}): tokenize them alike.")


def _folder(source: ShardIndex) -> str:
    return source.url or str(source.root)


@dataclass(frozen=True)
class StoredView:
    """One view of a sample, and where its ids lie.

    Args:
        field: that holds the ids.
        seed: that the view is drawn with.
        vocab_sizes: number of ids of each field of a token.
        values_are_ids: whether the ids are all that the model needs, so that the file itself is not read.
        ragged: whether the number of ids differs from sample to sample.
    """

    field: str
    seed: int
    vocab_sizes: Sequence[int]
    values_are_ids: bool
    ragged: bool

    def generator(self) -> torch.Generator:
        """Return the generator that the transform draws the view from."""
        return torch.Generator().manual_seed(self.seed)

    def ids(self, raw: RawSample) -> Tensor:
        """Return the ids, ``(n,)`` or ``(n, k)`` int64.

        Raises:
            SampleError: there are none, or they are damaged.
        """
        data = raw.fields.get(self.field)
        if data is None:
            raise SampleError(raw.shard, raw.key, self.field, "no ids: the sample could not be decoded when the shards were tokenized.")
        try:
            return ids_from_npy(data, self.vocab_sizes)
        except ValueError as error:
            raise SampleError(raw.shard, raw.key, self.field, str(error)) from None


class StoredViews:
    """Which stored view of each sample a pass over one split uses.

    Args:
        stored: from ``check_stored``.
        transforms: modality name -> transform.
        split: that is read.
        train: whether the pass augments. A pass that wants another kind of view than was stored for the split uses none of them.
    """

    def __init__(
        self, stored: Mapping[str, Sequence[StoredIds | None]], transforms: Mapping[str, Transform], split: str, train: bool
    ) -> None:
        self._stored = {
            name: [None if ids is None or (split in ids.train) != train else ids for ids in sources] for name, sources in stored.items()
        }
        owners = {name: own_tokenizer(transforms[name]) for name in stored}
        self._values = {name: owner.fingerprint() for name, owner in owners.items() if owner is not None}
        self._train = train

    def view(self, name: str, source: int, turn: int, key: str) -> StoredView | None:
        """Return the view of a modality of a sample; None where the transform draws freely and the tokenizer runs.

        Args:
            name: of the modality.
            source: number of the source.
            turn: how often the source was read through before; each turn uses the next view.
            key: of the sample.
        """
        ids = self._stored[name][source] if name in self._stored else None
        if ids is None:
            return None
        number = (stable_hash("view", ids.seed, key) + turn) % ids.crops if self._train else 0
        values_are_ids = self._values.get(name) == ids.tokenizer
        return StoredView(ids_field(name, number), crop_seed(ids.seed, key, number), ids.vocab_sizes, values_are_ids, ids.ragged)
