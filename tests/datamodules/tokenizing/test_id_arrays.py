import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multimodal.datamodules.tokenizing.id_arrays import id_dtype, ids_from_npy, ids_to_npy


@st.composite
def ids_and_sizes(draw):
    sizes = draw(st.lists(st.integers(1, 2**31), min_size=1, max_size=4))
    length = draw(st.integers(0, 20))
    columns = [draw(st.lists(st.integers(0, size - 1), min_size=length, max_size=length)) for size in sizes]
    ids = torch.tensor(columns, dtype=torch.int64).reshape(len(sizes), length).T
    return (ids[:, 0] if len(sizes) == 1 else ids), sizes


@given(ids_and_sizes())
def test_ids_come_back_and_numpy_reads_them(drawn):
    ids, sizes = drawn
    data = ids_to_npy(ids, sizes)
    read = ids_from_npy(data, sizes)
    assert read.dtype == torch.int64
    assert torch.equal(read, ids)
    assert ids_to_npy(ids.clone(), sizes) == data
    array = np.load(io.BytesIO(data), allow_pickle=False)
    assert array.tolist() == ids.tolist()
    assert array.dtype == id_dtype(sizes)


@pytest.mark.parametrize(("largest", "name"), [(1, "|u1"), (256, "|u1"), (257, "<u2"), (65536, "<u2"), (65537, "<i4"), (2**31, "<i4")])
def test_the_smallest_type_that_holds_all_ids(largest, name):
    assert id_dtype([2, largest] if largest > 1 else [1]).str == name


@pytest.mark.parametrize("sizes", [[], [0], [2**31 + 1]])
def test_impossible_vocabularies_are_refused(sizes):
    with pytest.raises(ValueError, match="vocab_sizes must be"):
        id_dtype(sizes)


@pytest.mark.parametrize(
    ("ids", "sizes", "message"),
    [
        ([[1, 2]], [5], r"shape \(1, 2\); \(n,\) is wanted for 1 fields"),
        ([1, 2], [5, 5], r"shape \(2,\); \(n, 2\) is wanted for 2 fields"),
        ([1, 5], [5], r"ids from 1 to 5; they must be in \[0, 5\)"),
        ([-1, 3], [5], r"ids from -1 to 3"),
        ([[4, 5]], [5, 5], r"ids from 5 to 5"),
    ],
)
def test_ids_that_do_not_fit_are_not_written(ids, sizes, message):
    with pytest.raises(ValueError, match=message):
        ids_to_npy(torch.tensor(ids), sizes)


def npy(array, version=(1, 0)):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not the .npy file"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "not the .npy file"),
        (npy(np.array([1], np.uint8), (2, 0)), "not the .npy file"),
        (npy(np.array([1, 2], np.int64)), "ids are <i8; for vocabularies of .200. they are .u1"),
        (npy(np.array([1, None], object)), "ids are .O"),
        (npy(np.asfortranarray(np.ones((2, 3), np.uint8))), "in Fortran order"),
        (npy(np.array([1, 2], np.uint8))[:-1], "damaged ids: 1 bytes for the shape"),
        (npy(np.array([1, 2], np.uint8)) + b"\0", "damaged ids: 3 bytes"),
        (npy(np.array([1, 200], np.uint8)), r"ids from 1 to 200; they must be in \[0, 200\)"),
        (npy(np.ones((2, 2), np.uint8)), r"shape \(2, 2\)"),
        (npy(np.array(1, np.uint8)), r"shape \(\)"),
    ],
)
def test_damaged_or_foreign_files_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        ids_from_npy(data, [200])


def test_a_header_that_claims_a_huge_array_allocates_nothing():
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (9000000000000000000,), }\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\1\2"
    with pytest.raises(ValueError, match="damaged ids: 2 bytes for the shape"):
        ids_from_npy(data, [200])


@given(st.binary(max_size=200), st.integers(0, 140), st.integers(0, 255))
def test_whatever_the_bytes_the_answer_is_ids_or_a_value_error(noise, place, byte):
    whole = bytearray(ids_to_npy(torch.tensor([1, 2, 3]), [200]))
    whole[place % len(whole)] = byte
    for data in (noise, bytes(whole), whole[:6] + noise):
        try:
            ids = ids_from_npy(bytes(data), [200])
        except ValueError:
            continue
        assert ids.ndim == 1 and bool((ids < 200).all())
