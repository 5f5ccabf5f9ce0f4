import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.datamodules.shards.tar_header import member_header, member_size, padding, tarfile_header

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=300) | st.text("ab/.", max_size=120)
SIZES = st.integers(0, 2**40) | st.sampled_from([0, 1, 511, 512, 8**11 - 1, 8**11])


@given(NAMES, SIZES)
def test_every_header_is_that_of_the_standard_library(name, size):
    assert member_header(name, size) == tarfile_header(name, size)


@pytest.mark.parametrize(("name", "blocks"), [("a" * 100, 1), ("a" * 101, 3), ("é.num", 3)])
def test_only_long_and_foreign_names_take_more_than_a_block(name, blocks):
    assert len(member_header(name, 5)) == 512 * blocks


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513])
def test_a_member_fills_whole_blocks(size):
    data = b"x" * size
    member = member_header("a.num", size) + data + padding(size)
    assert len(member) == member_size(size)
    with tarfile.open(fileobj=io.BytesIO(member + bytes(1024))) as archive:
        assert archive.extractfile("a.num").read() == data
