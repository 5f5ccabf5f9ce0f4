"""What a masking remembers of each sample: the places that it is not to hide.

Letters in shapes: n tokens of all items end to end, b bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

STATE = ("keys", "key_lengths", "rows", "row_lengths")


class MaskBook:
    """Places of samples that are closed, one bit a place, by the keys of the samples; at first all are open.

    A place is the index of a token in its item. Where crops or augmentation put other content there from epoch to epoch, the book holds
    for whatever lies at the place; and where an item is longer than before, its new places are open.
    """

    def __init__(self) -> None:
        self._rows: dict[str, bytes] = {}
        self._changed: set[str] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def closed(self, keys: Sequence[str], lengths: Sequence[int]) -> Bool[Tensor, " n"]:
        """Return True at closed places of items, on the CPU.

        Args:
            keys: of the samples that they belong to.
            lengths: their tokens.
        """
        return torch.from_numpy(np.concatenate([self._row(key, length) for key, length in zip(keys, lengths, strict=True)] or [_bits(b"")]))

    def write(self, keys: Sequence[str], closed: Sequence[Bool[Tensor, " _"]]) -> None:
        """Note the closed places of samples anew; what is known of places beyond stays.

        Args:
            keys: of the samples.
            closed: for each ``(its tokens,)``, on the CPU.
        """
        for key, own in zip(keys, closed, strict=True):
            known = _bits(self._rows.get(key, b""))
            self._rows[key] = np.packbits(np.concatenate([own.numpy(), known[len(own) :]])).tobytes()
            self._changed.add(key)

    def changes(self) -> dict[str, bytes]:
        """Return the rows that were written since this was last asked, for the books of other processes."""
        changed = {key: self._rows[key] for key in sorted(self._changed)}
        self._changed.clear()
        return changed

    def merge(self, changes: Mapping[str, bytes]) -> None:
        """Take over rows that another book wrote."""
        self._rows.update(changes)

    def state(self) -> dict[str, Tensor]:
        """Return the whole book as tensors: ``(b,)`` uint8 of all keys and of all rows end to end, and their lengths in bytes."""
        rows = {key.encode(): self._rows[key] for key in sorted(self._rows)}  # the same for equal books
        return dict(zip(STATE, (*_joined(list(rows)), *_joined(list(rows.values()))), strict=True))

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the place of another book, from its ``state``.

        Raises:
            ValueError: these are no tensors of a book.
        """
        if set(state) != set(STATE) or any(len(state[x]) != int(state[y].sum()) for x, y in (STATE[:2], STATE[2:])):
            raise ValueError(f"the mask book is damaged: it needs {', '.join(STATE)}, with lengths that add up.")
        keys, rows = (_cut(state[x], state[y]) for x, y in (STATE[:2], STATE[2:]))
        self._rows, self._changed = {key.decode(): row for key, row in zip(keys, rows, strict=True)}, set()

    def _row(self, key: str, length: int) -> np.ndarray:
        known = _bits(self._rows.get(key, b""))[:length]
        return np.concatenate([known, np.zeros(length - len(known), dtype=bool)])


def _bits(row: bytes) -> np.ndarray:
    return np.unpackbits(np.frombuffer(row, dtype=np.uint8)).view(bool)


def _joined(parts: Sequence[bytes]) -> tuple[Tensor, Tensor]:
    """Return bytes end to end, and the length of each part."""
    together = torch.from_numpy(np.frombuffer(b"".join(parts), dtype=np.uint8).copy())
    return together, torch.tensor([len(part) for part in parts], dtype=torch.int64)


def _cut(values: Tensor, lengths: Tensor) -> list[bytes]:
    """Return bytes that lie end to end one by one."""
    together, ends = values.numpy().tobytes(), lengths.cumsum(0).tolist()
    return [together[start:end] for start, end in zip([0, *ends], ends, strict=False)]
