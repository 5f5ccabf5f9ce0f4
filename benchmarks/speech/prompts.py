"""Telephone prompts with what they say, as Debian's ``asterisk-core-sounds`` list them."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from multimodal.tokenizers.text import CharacterTokenizer

LATIN, RUSSIAN = "abcdefghijklmnopqrstuvwxyz' ", "абвгдежзийклмнопрстуфхцчшщъыьэюя "
ALPHABETS = {"en": LATIN, "es": LATIN, "fr": LATIN, "it": LATIN, "ru": RUSSIAN}
"""Language -> its alphabet; accents are left out, as the lists do not always write them."""
SIGN = re.compile(r"\[[^\w\[\]]?\]")
"""A note of the sign that a word is for: "dollar [$]"."""
NOT_SPOKEN = re.compile(r"[][(){}<>*#@$%&+=_/\\]|\d")
"""What is no transcript where it is left: notes, such as "(2 seconds of silence)", signs whose names are not written, numbers."""


class Prompt(NamedTuple):
    """One recording.

    Args:
        name: in the list: "digits/1".
        path: of the sound.
        text: that is spoken.
        read: the same as the alphabet of the language has it.
    """

    name: str
    path: Path
    text: str
    read: str


def prompts(unpacked: Path, language: str) -> tuple[list[Prompt], int]:
    """Return the prompts of a language whose words are written out, in the order of their names, and how many of its sounds are no such.

    Args:
        unpacked: packages of the sounds and of the lists.
        language: one of ``ALPHABETS``.
    """
    package = f"asterisk-core-sounds-{language}"
    texts = read_list(gzip.decompress((unpacked / f"usr/share/doc/{package}/core-sounds-{language}.txt.gz").read_bytes()))
    (folder,) = (unpacked / "usr/share/asterisk/sounds").glob(f"{language}_*")
    tokenizer = CharacterTokenizer(ALPHABETS[language], strict=True)
    found, others = [], 0
    for path in sorted(folder.rglob("*.wav")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        text = spoken(texts.get(name, ""), texts)
        read = _read(text, tokenizer)
        if read:
            found.append(Prompt(name, path, text, read))
        others += not read
    return found, others


def read_list(data: bytes) -> dict[str, str]:
    """Return name -> text, of lines "name: text"; those that begin with ";" are remarks."""
    lines = [line for line in data.decode("utf-8-sig").splitlines() if line.strip() and not line.startswith(";")]
    return {name.strip(): text.strip() for name, _, text in (line.partition(":") for line in lines)}


def spoken(text: str, texts: dict[str, str]) -> str:
    """Return what is said: single digits in words, as the list has them; nothing where something else is not written out."""
    words = re.sub(r"\b\d\b", lambda digit: texts.get(f"digits/{digit[0]}", digit[0]), SIGN.sub("", text)).strip()
    return "" if NOT_SPOKEN.search(words) else words


def _read(text: str, tokenizer: CharacterTokenizer) -> str:
    try:
        return tokenizer.normalized(text)
    except ValueError:  # letters of another alphabet
        return ""


def split_of(read: str) -> str:
    """Return the split of a text, which says it for all recordings of it, of any language: a tenth tests, a tenth validates."""
    number = int.from_bytes(hashlib.sha256(read.encode()).digest()[:8], "big") % 10
    return {0: "test", 1: "val"}.get(number, "train")
