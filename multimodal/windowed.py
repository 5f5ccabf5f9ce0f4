"""Items that were too long for one sequence: cut into windows, which lie end to end, with what belongs to each token beside them.

The labels of such an item are ``(n, c)`` int64, a row for each token: the window of the token in the first column, then those below, or
none. The ``tokenizer_values`` of items of words are the texts that they were made of, packed into bytes.

Letters in shapes: n tokens of all items end to end, w windows, b bytes, c columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import IntEnum
from typing import NamedTuple

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from multimodal.batch import Item, Items

WINDOW = 0
"""The first column of the labels."""
SEED_STEP = 0x5851F42D4C957F2D
"""Between the seeds of the windows of one item; odd, so that they keep apart."""
END_OF_TEXT, END_OF_ITEM = 0xFF, 0xFE
"""Bytes that no UTF-8 has."""


class TagColumn(IntEnum):
    """Columns of the labels of tagged words; each word of an item has one token that tells its tag, in one window."""

    WINDOW = 0
    """Number of the window within the item, ascending from 0."""
    WORD = 1
    """Number of the word whose tag the token tells; -1: of none."""
    SENTENCE = 2
    """Number of its sentence; -1 as before."""
    TAG = 3
    """Class of the word; -1: it has none, or the token tells none."""


class PlaceColumn(IntEnum):
    """Columns of the labels of places, such as notes, each of one or several tokens."""

    WINDOW = 0
    """Number of the window within the item, ascending from 0."""
    PLACE = 1
    """Number of the place that the token tells together with the others of that number; -1: of none. A place is told in one window."""
    CLASS = 2
    """Class of the place; -1: it has none, or the token tells none."""
    COUNT = 3
    """How many places the item has, those that no token tells counted too."""


class AnswerColumn(IntEnum):
    """Columns of the labels of questions about a text. The first token of each window stands for "no answer"."""

    WINDOW = 0
    """Number of the window within the item, ascending from 0."""
    FROM = 1
    """First character of the token in the text; -1 where the token is not of the text."""
    BEFORE = 2
    """The character after its last; -1 as before."""
    STARTS = 3
    """1 at the token with which the window's answer begins, or at its first token where the window has none; else 0."""
    ENDS = 4
    """1 at the token with which it ends. No token of an item has a 1 where it is not known whether there is an answer."""


class Windows(NamedTuple):
    """The windows of all items, in their order.

    Args:
        lengths: ``(w,)`` int64, the tokens of each.
        item: ``(w,)`` int64, the item of each.
    """

    lengths: Tensor
    item: Tensor


def windows_of(items: Items) -> Windows:
    """Return the windows of items whose labels say them.

    Raises:
        ValueError: the items bring no such labels.
    """
    if items.labels is None or items.lengths is None or items.labels.ndim != 2:
        raise ValueError("the items bring no labels that say the window of each token: use a transform that cuts texts into windows.")
    item = torch.repeat_interleave(items.lengths, output_size=len(items.labels))
    window = torch.stack([item, items.labels[:, TagColumn.WINDOW]], 1)
    found, lengths = torch.unique_consecutive(window, return_counts=True, dim=0)
    return Windows(lengths, found[:, 0])


def is_windowed(items: Items) -> bool:
    """Return whether items are windows end to end."""
    return items.labels is not None and items.lengths is not None and items.labels.ndim == 2


def split_windows(items: Items) -> Items:
    """Return the windows of items as items of their own, each with a seed of its own; others as they are."""
    if not is_windowed(items):
        return items
    windows, labels = windows_of(items), items.labels
    assert labels is not None
    number = labels[windows.lengths.cumsum(0) - windows.lengths, WINDOW].long()
    return replace(items, sample=items.sample[windows.item], seed=items.seed[windows.item] + number * SEED_STEP, lengths=windows.lengths)


def item_of_windows(windows: Sequence[Tensor]) -> Item:
    """Return an item of windows, each ``(n, ...)``, end to end, as evaluation tells classes from several of them (``Transform.num_views``).

    Raises:
        ValueError: there are no windows, or one is empty.
    """
    lengths = torch.tensor([len(window) for window in windows])
    if not len(windows) or int(lengths.min()) < 1:
        raise ValueError(f"an item needs windows, none of which is empty, got windows of {lengths.tolist()} entries.")
    number = torch.repeat_interleave(torch.arange(len(windows)), lengths)
    return Item(torch.cat(list(windows)), ragged=True, labels=number[:, None])


def pack(texts: Iterable[str]) -> UInt8[Tensor, " b"]:
    """Return the texts of one item as bytes: UTF-8, with a byte at the end of each text, and another at the end of the item."""
    end = bytes([END_OF_TEXT])
    packed = b"".join(text.encode("utf-8", "replace") + end for text in texts) + bytes([END_OF_ITEM])
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8)


def unpack(packed: UInt8[Tensor, " b"] | None) -> list[list[str]]:
    """Return the texts of each item of a batch; see ``pack``.

    Raises:
        ValueError: the items bring none.
    """
    if packed is None:
        raise ValueError("the items bring no texts beside their tokens, which they do in validation, test and prediction.")
    items = packed.cpu().numpy().tobytes().split(bytes([END_OF_ITEM]))[:-1]
    return [[text.decode("utf-8") for text in item.split(bytes([END_OF_TEXT]))[:-1]] for item in items]


def no_labels(num_tokens: int, columns: type[TagColumn] | type[AnswerColumn] | type[PlaceColumn]) -> Int[Tensor, "n c"]:
    """Return the labels of so many tokens of which nothing is said."""
    return torch.full((num_tokens, len(columns)), -1, dtype=torch.int64)
