"""The members of a tar, by their headers.

Headers of plain files, which are nearly all, are read here; whatever else there is (long names, links, damage) is left to ``tarfile``,
which takes ten times as long.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

_BLOCK = tarfile.BLOCKSIZE
_MAX_EXTENDED_HEADER = 1 << 20
_EXTENDED = (b"x", b"g", b"X", b"L", b"K")
_CHUNK = 1 << 16


class Member(NamedTuple):
    """One file of a tar.

    Args:
        name: its path.
        offset: of its bytes.
        size: number of them.
        plain: whether it is a file with contents of its own: no link, device or sparse file.
    """

    name: str
    offset: int
    size: int
    plain: bool


def members(descriptor: int) -> Iterator[Member]:
    """Yield the members in order, without the folders.

    Args:
        descriptor: of the open file.

    Raises:
        tarfile.ReadError: the file ends before the end of the archive, or a header is damaged.
    """
    end, offset = os.fstat(descriptor).st_size, 0
    chunk, chunk_start = b"", 0
    while True:
        if not chunk_start <= offset <= chunk_start + len(chunk) - _BLOCK:
            chunk, chunk_start = os.pread(descriptor, _CHUNK, offset), offset
        header = chunk[offset - chunk_start : offset - chunk_start + _BLOCK]
        if header == bytes(_BLOCK):
            return
        member, after = _plain(header, offset) or _unusual(descriptor, header, offset)
        if not 0 <= member.size <= end - member.offset:  # before anything of that size is allocated
            raise tarfile.ReadError("unexpected end of data")
        if member.name:
            yield member
        offset = after


def _plain(header: bytes, offset: int) -> tuple[Member, int] | None:
    """Return the member of a plain file with a short ASCII name, and the offset of the next header; None for any other header."""
    if len(header) < _BLOCK or header[257:265] != b"ustar\x0000" or header[156:157] != b"0" or header[345] != 0:
        return None
    name, size, checksum = header[:100].rstrip(b"\0"), header[124:135], header[148:154]
    if not (size.isdigit() and checksum.isdigit() and name.isascii()) or b"\0" in name:
        return None
    if int(checksum, 8) != sum(header) - sum(header[148:156]) + 256:
        return None
    length = int(size, 8)
    return Member(name.decode("ascii"), offset + _BLOCK, length, plain=True), offset + _BLOCK + -(-length // _BLOCK) * _BLOCK


def _unusual(descriptor: int, header: bytes, offset: int) -> tuple[Member, int]:
    """Return the member, or one without a name for a folder, and the offset of the next header."""
    if header[156:157] in _EXTENDED and not _small(header[124:136]):
        raise tarfile.ReadError(f"an extended header of no size or of more than {_MAX_EXTENDED_HEADER} bytes at byte {offset}")
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(offset)
        try:
            archive = tarfile.TarFile(fileobj=file, mode="r")
        except RecursionError:
            raise tarfile.ReadError(f"too many extended headers in a row at byte {offset}") from None
        info: tarfile.TarInfo | None = archive.firstmember  # type: ignore[attr-defined]
    if info is None:  # so tarfile says that a header is damaged, or that the file ends here
        raise tarfile.ReadError(f"no valid header at byte {offset}")
    plain = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse()
    return Member("" if info.isdir() else info.name, info.offset_data, info.size, plain), archive.offset


def _small(size: bytes) -> bool:
    """Whether the size of an extended header is one that such a header has: octal digits, and no gigabytes."""
    digits = size.strip(b" \0")
    return digits.isdigit() and b"8" not in digits and b"9" not in digits and int(digits, 8) <= _MAX_EXTENDED_HEADER
