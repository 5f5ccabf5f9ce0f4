"""Does a field hold what its name says: JSON parses, arrays load, stored ids fit their vocabularies, the rest is decoded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping

from multimodal.datamodules.checking.arrays import load_array
from multimodal.datamodules.checking.decoders import load_decoders
from multimodal.datamodules.shards.contents import METADATA, metadata_of
from multimodal.datamodules.shards.index import StoredIds


class FieldCheck:
    """Check the fields of samples of one split.

    Args:
        ids: modality name -> ids that the index says are stored.
        split: of the samples.

    Attributes:
        unchecked: (field, reason) -> how many could not be checked, because nothing that is installed reads them.
    """

    def __init__(self, ids: Mapping[str, StoredIds], split: str) -> None:
        self.decoders = load_decoders()
        self.unchecked: Counter[tuple[str, str]] = Counter()
        self._views = {name: _view_fields(name, stored, split) for name, stored in ids.items()}
        self._ids, self._owners = dict(ids), {field: name for name, fields in self._views.items() for field in fields}
        self._lengths: dict[str, int | None] = {}

    def field(self, name: str, data: bytes) -> None:
        """Check one field that holds no stored ids.

        Raises:
            ValueError: it is not what its name says.
        """
        extension = name.rpartition(".")[-1]
        if name == METADATA:
            metadata_of(data)
        elif extension == "json":
            _parse(data)
        elif extension == "npy":
            load_array(data)
        else:
            self._decode(name, data)

    def views(self, num_ids: Mapping[str, int | None]) -> Iterator[tuple[str, str]]:
        """Yield (field, reason) for what is wrong with the stored ids of a sample as a whole.

        Args:
            num_ids: field -> number of ids, of the fields of the sample that hold ids; None for a damaged one.
        """
        for name, fields in self._views.items():
            stored = self._ids[name]
            there = [field for field in fields if field in num_ids]
            for field in fields:
                if there and field not in num_ids:
                    yield field, f"the ids of this view are missing; those of {len(there)} of {len(fields)} views are there."
            good = [field for field in there if num_ids[field] is not None]
            for field in good:
                if num_ids[field] != num_ids[good[0]]:
                    yield field, f"{num_ids[field]} ids; {good[0]!r} of the same sample has {num_ids[good[0]]}."
            if good and not stored.ragged:
                count, before = num_ids[good[0]], self._lengths.setdefault(name, num_ids[good[0]])
                if count != before:
                    yield good[0], f"{count} ids; the samples before have {before}, and the index says that all have as many."

    def holds_ids(self, name: str) -> bool:
        """Return whether the index says that a field holds stored ids."""
        return name in self._owners

    def ids(self, name: str, data: bytes) -> int:
        """Return the number of ids that a field of stored ids holds.

        Raises:
            ValueError: they are damaged or do not fit the vocabulary.
        """
        from multimodal.datamodules.tokenizing.id_arrays import ids_from_npy

        return len(ids_from_npy(data, self._ids[self._owners[name]].vocab_sizes))

    def _decode(self, name: str, data: bytes) -> None:
        transform = self.decoders.find(name)
        if transform is None:
            self.unchecked[name, self.decoders.why_not(name)] += 1
            return
        try:
            transform.decode(data)
        except ValueError as error:
            if not isinstance(error.__cause__ or error.__context__, ImportError):  # an optional package is missing
                raise
            self.unchecked[name, str(error)] += 1


def _parse(data: bytes) -> None:
    try:
        json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}.") from None


def _view_fields(name: str, stored: StoredIds, split: str) -> list[str]:
    return [f"{name}.{view}.ids.npy" for view in range(stored.crops if split in stored.train else 1)]
