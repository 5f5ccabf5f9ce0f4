"""Keys of samples: safe names in a shard, and what follows from a key alone (its split, its place, its seed)."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping

MAX_KEY_BYTES = 200
_SPLIT_NAME = re.compile(r"[A-Za-z0-9_]+")


def stable_hash(*parts: object) -> int:
    """Return a 64-bit number that depends on the parts only: equal in every process, machine and version."""
    data = "\0".join(str(part) for part in parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def clean_key(name: str) -> str:
    """Return ``name`` (a relative path without its extension) as a key that is safe in a tar.

    Slashes, letters of any alphabet, spaces and case stay. Dots, backslashes and control characters become ``_``; empty, ``.`` and ``..``
    folders go. A name that had to be changed ends in a hash of the original, so that different names give different keys.
    """
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    key = "/".join("".join(_clean_character(character) for character in part) for part in parts)
    if key and key == name and len(key.encode()) <= MAX_KEY_BYTES:
        return key
    suffix = f"-{stable_hash(name):016x}"
    shortened = key.encode()[: MAX_KEY_BYTES - len(suffix)].decode(errors="ignore")  # drops half a character at the cut
    return (shortened or "sample") + suffix


def _clean_character(character: str) -> str:
    unsafe = character in ".\\" or unicodedata.category(character)[0] == "C" or character in "\u2028\u2029"
    return "_" if unsafe else character


def parse_fractions(argument: str) -> dict[str, float]:
    """Return split name -> share of the samples from ``train=0.9,val=0.1``.

    Raises:
        ValueError: not of that form, a name twice, a share outside (0, 1], or shares that do not add up to 1.
    """
    fractions: dict[str, float] = {}
    for part in argument.split(","):
        name, _, share = (piece.strip() for piece in part.partition("="))
        try:
            fraction = float(share)
        except ValueError:
            raise ValueError(f"split {argument!r}: {part!r} is not NAME=SHARE, as in train=0.9,val=0.1.") from None
        if not _SPLIT_NAME.fullmatch(name) or name in fractions or not 0 < fraction <= 1:
            raise ValueError(f"split {argument!r}: {part!r} needs a new name of letters, digits and _, and a share in (0, 1].")
        fractions[name] = fraction
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(f"split {argument!r}: the shares add up to {sum(fractions.values()):g}, not 1.")
    return fractions


def split_of(key: str, fractions: Mapping[str, float]) -> str:
    """Return the split that a key belongs to; it stays the same when other samples come or go."""
    place = stable_hash("split", key) / 2**64
    for name, fraction in fractions.items():
        place -= fraction
        if place < 0:
            return name
    return name  # shares that add up to 0.9999999
