"""Byte pair encoding of grids: units, merges and bits by hand."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.grid_bpe import Pair, Units, bits_alone, bits_in_context, learned, partly_visible
from multimodal.masking import RandomMasking
from multimodal.protocols import Masking

BRICKS = np.array([[[1, 2, 1, 2], [3, 3, 3, 0]]])


def random_grids(count: int, rows: int, columns: int, ids: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(ids, size=(count, rows, columns))


class LeftHalf(Masking):
    """Hide the left half of each grid."""

    def __call__(self, tokens, seed):
        return tokens.coordinates[:, 0].new_tensor([1, 1, 0, 0]).bool().repeat(len(tokens.inputs) // 4)


def test_at_first_each_cell_is_a_unit():
    units = Units(BRICKS)
    assert units.symbol_of_each().tolist() == BRICKS.ravel().tolist() and units.counts().tolist() == [8]
    assert len(units.pairs()) == 3 + 3 + 4  # side by side in two rows, one above the other in four columns


def test_a_merge_makes_one_unit_of_two():
    units = Units(BRICKS)
    pair = units.most_frequent()
    assert pair in (Pair(1, 2, 1), Pair(3, 3, 1), Pair(1, 3, 8)) and pair == Pair(1, 2, 1)
    units.merge(pair, 4)
    assert units.symbols.tolist() == [[[4, 4, 4, 4], [3, 3, 3, 0]]] and units.counts().tolist() == [6]
    assert units.symbol_of_each().tolist() == [4, 4, 3, 3, 3, 0]
    assert {tuple(x) for x in units.pairs()[:, 2:].tolist()} == {(4, 4), (4, 3), (3, 3), (3, 0), (4, 0)}


def test_where_pairs_overlap_the_first_one_wins():
    units = Units(BRICKS)
    units.merge(Pair(3, 3, 1), 5)
    assert units.symbols.tolist() == [[[1, 2, 1, 2], [5, 5, 3, 0]]] and units.counts().tolist() == [7]


def test_units_of_several_cells_merge_at_their_offset_alone():
    units = Units(np.array([[[1, 2, 1], [1, 2, 2]]]))
    units.merge(Pair(1, 2, 1), 3)
    assert units.symbols.tolist() == [[[3, 3, 1], [3, 3, 2]]]
    units.merge(Pair(3, 3, 5), 4)  # not where they lie
    assert units.counts().tolist() == [4]
    units.merge(Pair(3, 3, 6), 4)  # the row below
    assert units.counts().tolist() == [3] and units.symbols.tolist() == [[[4, 4, 1], [4, 4, 2]]]


@settings(max_examples=40, deadline=None)
@example(1, 2, 194)  # one unit before all merges are done
@given(st.integers(1, 4), st.integers(2, 5), st.integers(0, 1000))
def test_units_are_whole_and_the_same_shape_for_one_symbol(count, side, seed):
    grids = random_grids(count, side, side + 1, 3, seed)
    *_, (_, units, _) = learned(grids, grids, 3, [4])
    shapes: dict[int, set] = {}
    for cell in np.unique(units.first_cells):
        image, *places = np.nonzero(units.first_cells == cell)
        assert len(set(image.tolist())) == 1 and len(set(units.symbols[(image, *places)].tolist())) == 1
        shape = tuple(zip(*((place - place[0]).tolist() for place in places), strict=True))
        content = tuple(grids[(image, *places)].tolist())
        shapes.setdefault(int(units.symbols[image[0], places[0][0], places[1][0]]), set()).add((shape, content))
    assert all(len(kinds) == 1 for kinds in shapes.values())
    assert units.counts().sum() == len(np.unique(units.first_cells)) == len(units.symbol_of_each())


def test_bits_are_those_of_the_counts():
    train, held_out = np.array([0, 0, 0, 1]), np.array([0, 1, 2])
    expected = -math.log2(4 / 7) - math.log2(2 / 7) - math.log2(1 / 7)
    assert bits_alone(train, held_out, 3) == pytest.approx(expected)


def test_a_context_that_decides_the_id_costs_little():
    stripes = np.tile(np.arange(8) % 2, (200, 4, 1)) ^ random_grids(200, 1, 1, 2, 0)
    alone = bits_alone(stripes.ravel(), stripes.ravel(), 2)
    assert alone == pytest.approx(stripes.size, rel=0.01)
    assert bits_in_context(stripes, stripes, 2) == pytest.approx(200, rel=0.5)  # one bit an image: its first id


def test_repeated_pairs_save_what_they_say():
    """Rows of a random pattern twice over: half of the units, each of a whole bit."""
    grids = np.repeat(random_grids(400, 4, 3, 2, 0), 2, axis=2)
    train, held_out = grids[:300], grids[300:]
    plain = bits_alone(train.ravel(), held_out.ravel(), 2)
    *_, (_, units, others) = learned(train, held_out, 2, [0, 8])
    assert bits_alone(units.symbol_of_each(), others.symbol_of_each(), 10) < 0.8 * plain


def test_a_leak_is_a_hidden_token_whose_unit_is_partly_visible():
    units = Units(np.array([[[1, 2, 3, 4]]]))
    assert partly_visible(units, LeftHalf()) == (0.0, 0.5)
    units.merge(Pair(2, 3, 1), 5)
    assert partly_visible(units, LeftHalf()) == (0.5, 0.5)
    shown, hidden = partly_visible(Units(random_grids(20, 4, 4, 3, 0)), RandomMasking(0.25))
    assert (shown, hidden) == (0.0, 0.25)
