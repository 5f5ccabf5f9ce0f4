"""The book of closed places: what is written is read, in bits, and survives as tensors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.masking import MaskBook

ROWS = st.dictionaries(st.text(max_size=6), st.lists(st.booleans(), max_size=30), max_size=6)


def book_of(rows: dict[str, list[bool]]) -> MaskBook:
    book = MaskBook()
    book.write(list(rows), [torch.tensor(row, dtype=torch.bool) for row in rows.values()])
    return book


@settings(deadline=None)
@given(ROWS, ROWS, st.integers(0, 40))
def test_what_was_written_last_is_read_and_all_else_is_open(first, second, length):
    book = book_of(first)
    book.write(list(second), [torch.tensor(row, dtype=torch.bool) for row in second.values()])
    expected = {key: second.get(key, []) + first.get(key, [])[len(second.get(key, [])) :] for key in {**first, **second}}
    keys = [*expected, "a key of none"]
    rows = book.closed(keys, [length] * len(keys)).split([length] * len(keys))
    for key, row in zip(keys, rows, strict=True):
        known = expected.get(key, [])[:length]
        assert row.tolist() == known + [False] * (length - len(known))


@settings(deadline=None)
@given(ROWS)
def test_a_book_is_tensors_and_comes_back_from_them(rows):
    book, again = book_of(rows), MaskBook()
    again.write(["gone"], [torch.tensor([True])])
    again.load(book.state())
    keys = [*rows, "gone"]
    assert torch.equal(again.closed(keys, [33] * len(keys)), book.closed(keys, [33] * len(keys)))
    assert len(again) == len(rows) and not again.changes()
    assert all(torch.equal(x, again.state()[name]) for name, x in book.state().items())


def test_a_place_takes_one_bit():
    book = book_of({str(number): [True] * 1024 for number in range(100)})
    state = book.state()
    assert state["rows"].shape == (100 * 128,) and state["rows"].dtype == torch.uint8
    assert sum(x.nbytes for x in state.values()) == 100 * (128 + 16) + 190


def test_books_of_processes_become_the_same_by_their_changes():
    books = [book_of({"a": [True, False]}), book_of({"b": [False, True]})]
    changes = [book.changes() for book in books]
    for book in books:
        for other in changes:
            book.merge(other)
        assert book.changes() == {}
    one, two = (book.state() for book in books)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert books[1].closed(["a", "b"], [2, 2]).tolist() == [True, False, False, True]


def test_an_empty_book_knows_nothing():
    assert MaskBook().closed([], []).shape == (0,) and MaskBook().closed(["x"], [3]).tolist() == [False] * 3
    MaskBook().load(MaskBook().state())


@pytest.mark.parametrize("change", [{"rows": torch.zeros(5, dtype=torch.uint8)}, {"more": torch.zeros(1)}])
def test_a_damaged_book_is_refused(change):
    with pytest.raises(ValueError, match="the mask book is damaged"):
        MaskBook().load(book_of({"a": [True] * 9}).state() | change)
