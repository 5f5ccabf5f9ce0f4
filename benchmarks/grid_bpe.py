"""Byte pair encoding of grids of ids: what it saves, and whether masked modeling has a use for it.

``python -m benchmarks.grid_bpe RUN [--merges 16 64 128] [--mask-ratio 0.5] [--images 2000]``

RUN is a finished run of a recipe of ``configs/tokenizer/``.

Neighbours in the grid that occur together most often become one unit, over and over ("From Pixels to Tokens",
https://arxiv.org/abs/2410.02155). The merges are learned on the training split. For the validation split the table says how many units
an image then has, and its bits under a model in which units are independent (the counts of the training split, each plus one), beside
the bits of single ids given their left and upper neighbours, which any model that looks around sees. The second table says what hiding
whole units would add: how many hidden tokens belong to a unit that is partly visible, for random and for block-wise masks.

Letters in shapes: n images, h rows, w columns, u units, o occurrences of a pair.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.side_by_side import machine
from multimodal.batch import Items
from multimodal.lightning_cli import load_run
from multimodal.masking import BlockwiseMasking, RandomMasking
from multimodal.protocols import Masking, Tokens

MERGES = (16, 64, 128)
STRENGTH = 10.0
"""How many counts of a shorter context a longer one is mixed with."""
Grids = Int[np.ndarray, "n h w"]


class Pair(NamedTuple):
    """Two units side by side.

    Args:
        first: symbol of the unit whose first cell comes first, row by row.
        second: symbol of the other.
        offset: from the first cell of the one to the first cell of the other, as ``rows * 2 w + columns``.
    """

    first: int
    second: int
    offset: int


class Units:
    """Grids of ids cut into units of one or more cells; at first each cell is one.

    Args:
        grids: the ids.
    """

    def __init__(self, grids: Grids) -> None:
        count, rows, columns = grids.shape
        self.symbols = grids.astype(np.int64)
        place = np.arange(rows)[:, None] * 2 * columns + np.arange(columns)  # columns apart from those of the next row
        self.stride = 2 * rows * columns
        self.first_cells = place + np.arange(count)[:, None, None] * self.stride
        """Of the unit of each cell, a number that says image, row and column."""

    def symbol_of_each(self) -> Int[np.ndarray, " u"]:
        """Return the symbols of the units, image after image, in the order of their first cells."""
        return self.symbols[self._is_first()]

    def counts(self) -> Int[np.ndarray, " n"]:
        """Return the number of units of each image."""
        return self._is_first().sum((1, 2))

    def _is_first(self) -> np.ndarray:
        count, rows, columns = self.symbols.shape
        own = np.arange(rows)[:, None] * 2 * columns + np.arange(columns) + np.arange(count)[:, None, None] * self.stride
        return self.first_cells == own

    def pairs(self) -> Int[np.ndarray, "o 4"]:
        """Return first cell of either unit and symbol of either, of all units that touch, each pair once."""
        sides = [(np.s_[:, :, :-1], np.s_[:, :, 1:]), (np.s_[:, :-1], np.s_[:, 1:])]
        cells = np.concatenate([np.stack([self.first_cells[a], self.first_cells[b]], -1).reshape(-1, 2) for a, b in sides])
        symbols = np.concatenate([np.stack([self.symbols[a], self.symbols[b]], -1).reshape(-1, 2) for a, b in sides])
        different = cells[:, 0] != cells[:, 1]
        cells, symbols = cells[different], symbols[different]
        order = cells.argsort(1)
        cells, symbols = np.take_along_axis(cells, order, 1), np.take_along_axis(symbols, order, 1)
        key = cells[:, 0] * self.stride + cells[:, 1] - cells[:, 0]  # the distance is below the stride
        _, once = np.unique(key, return_index=True)
        return np.concatenate([cells[once], symbols[once]], 1)

    def most_frequent(self) -> Pair | None:
        """Return the pair that occurs most often, the smallest of equal ones; None where every image is one unit."""
        found = self.pairs()
        if not len(found):
            return None
        size = int(self.symbols.max()) + 1
        kinds, number = np.unique((found[:, 2] * size + found[:, 3]) * self.stride + found[:, 1] - found[:, 0], return_counts=True)
        symbols, offset = divmod(int(kinds[number.argmax()]), self.stride)
        return Pair(*divmod(symbols, size), offset)

    def merge(self, pair: Pair, symbol: int) -> None:
        """Make one unit of each occurrence of a pair; where they overlap, the first one wins."""
        found = self.pairs()
        wanted = (found[:, 2] == pair.first) & (found[:, 3] == pair.second) & (found[:, 1] - found[:, 0] == pair.offset)
        becomes = _without_overlaps(found[wanted, :2])
        if not len(becomes):
            return
        self.symbols[np.isin(self.first_cells, becomes)] = symbol
        seconds = becomes[becomes[:, 1].argsort()]
        place = np.searchsorted(seconds[:, 1], self.first_cells).clip(max=len(seconds) - 1)
        self.first_cells = np.where(seconds[place, 1] == self.first_cells, seconds[place, 0], self.first_cells)


def _without_overlaps(occurrences: Int[np.ndarray, "o 2"]) -> Int[np.ndarray, "p 2"]:
    """Return the pairs of units in their order, without those of which a unit is taken."""
    taken: set[int] = set()
    kept = []
    for first, second in occurrences[occurrences[:, 0].argsort()].tolist():
        if first not in taken and second not in taken:
            taken |= {first, second}
            kept.append((first, second))
    return np.array(kept, dtype=np.int64).reshape(-1, 2)


def bits_alone(train: Int[np.ndarray, " u"], held_out: Int[np.ndarray, " v"], vocab_size: int) -> float:
    """Return the bits of all held-out symbols, each independent of the others."""
    counts = np.bincount(train, minlength=vocab_size) + 1.0
    return float(-np.log2(counts / counts.sum())[held_out].sum())


def bits_in_context(train: Grids, held_out: Grids, vocab_size: int) -> float:
    """Return the bits of all held-out ids given the ids on the left and above, by counts that are mixed with those of shorter contexts."""
    (ids, left, above), (new, new_left, new_above) = _with_context(train, vocab_size), _with_context(held_out, vocab_size)
    counts = np.bincount(ids, minlength=vocab_size) + 1.0
    share = (counts / counts.sum())[new]
    size = vocab_size + 1  # one more for the outside
    for context, wanted in ((left, new_left), (left * size + above, new_left * size + new_above)):
        joint = _occurrences(context * size + ids, wanted * size + new)
        share = (joint + STRENGTH * share) / (_occurrences(context, wanted) + STRENGTH)
    return float(-np.log2(share).sum())


def _with_context(grids: Grids, vocab_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each id, its left and its upper neighbour; the outside has the number of ids."""
    padded = np.pad(grids.astype(np.int64), ((0, 0), (1, 0), (1, 0)), constant_values=vocab_size)
    return padded[:, 1:, 1:].ravel(), padded[:, 1:, :-1].ravel(), padded[:, :-1, 1:].ravel()


def _occurrences(seen: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return how often each of ``wanted`` is in ``seen``."""
    keys, counts = np.unique(seen, return_counts=True)
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[place] == wanted, counts[place], 0)


def partly_visible(units: Units, masking: Masking) -> tuple[float, float]:
    """Return the share of hidden tokens whose unit is partly visible, and the share of all tokens that are hidden."""
    count, rows, columns = units.symbols.shape
    lengths = torch.full((count,), rows * columns)
    cells = torch.zeros(count * rows * columns, 2, dtype=torch.long)
    tokens = Tokens(cells, lengths, cells, (rows, columns))
    hidden = masking(tokens, torch.arange(count)).numpy()
    _, unit = np.unique(units.first_cells.ravel(), return_inverse=True)
    shown = np.bincount(unit, weights=~hidden) > 0
    return float(shown[unit][hidden].mean()), float(hidden.mean())


def ids_of(batches: Iterable, name: str, tokenizer: torch.nn.Module, grid: tuple[int, int]) -> Grids:
    """Return the ids of a split; of several fields, those of the first."""
    with torch.no_grad():
        ids = torch.cat([tokenizer.encode(_values(batch.items[name])) for batch in batches])
    return ids.view(len(ids), -1)[:, 0].view(-1, *grid).numpy()


def _values(items: Items) -> Tensor:
    return items.values if items.tokenizer_values is None else items.tokenizer_values


def learned(train: Grids, held_out: Grids, vocab_size: int, merges: Iterable[int]) -> Iterable[tuple[int, Units, Units]]:
    """Yield the number of merges and the units of both splits, for each of the numbers, which ascend."""
    units, others, done = Units(train), Units(held_out), 0
    for number in merges:
        for symbol in range(vocab_size + done, vocab_size + number):
            pair = units.most_frequent()
            if pair is None:
                break
            units.merge(pair, symbol)
            others.merge(pair, symbol)
        done = number
        yield number, units, others


def main() -> int:
    """Print the two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a finished run that trained a tokenizer")
    parser.add_argument("--merges", type=int, nargs="+", default=MERGES)
    parser.add_argument("--mask-ratio", type=float, default=0.5)
    parser.add_argument("--images", type=int, default=2000, help="of the training split at most")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, data = load_run(options.run)
    grid = model.renderer.grid
    train, held_out = (ids_of(data.evaluation_dataloader(x), model.name, model.tokenizer, grid) for x in ("train", "val"))
    train, vocab_size = train[: options.images], model.tokenizer.vocab_sizes[0]
    saved = Table(
        "merges", "units per image", "bits per image", "of the bits without", title=f"{vocab_size} ids, {len(held_out)} held-out images"
    )
    leaks = Table("merges", "random masks", "block-wise masks", title="hidden tokens whose unit is partly visible")
    plain = bits_alone(train.ravel(), held_out.ravel(), vocab_size)
    context = bits_in_context(train, held_out, vocab_size)
    random, blocks = RandomMasking(options.mask_ratio), BlockwiseMasking(options.mask_ratio, min_block=4)
    for number, units, others in learned(train, held_out, vocab_size, [0, *sorted(options.merges)]):
        bits = bits_alone(units.symbol_of_each(), others.symbol_of_each(), vocab_size + number)
        saved.add_row(str(number), f"{others.counts().mean():.1f}", f"{bits / len(held_out):.1f}", f"{bits / plain:.3f}")
        leaks.add_row(str(number), *(f"{partly_visible(others, masking)[0]:.3f}" for masking in (random, blocks)))
    saved.add_row("0, given left and upper id", f"{held_out[0].size:.1f}", f"{context / len(held_out):.1f}", f"{context / plain:.3f}")
    console = Console(width=120)
    for shown in (saved, leaks, machine(("torch", "numpy"))):
        console.print(shown)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
