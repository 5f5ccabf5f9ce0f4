"""Paragraphs of GNOME's manual in many languages, as shards with the field ``txt`` and the language as label; nothing is installed.

``python -m benchmarks.languages.data FOLDER`` fetches the Debian package ``gnome-user-docs`` with ``apt-get download`` (8.5 MB) into
``FOLDER/packages`` and writes ``FOLDER/paragraphs`` (whole paragraphs, to pretrain on; none of the test) and ``FOLDER/beginnings`` (their
first 20 characters, to tell the language of). The hash of a page's name decides the split, so that no translation of a page of the test is
one of training. Of each language a beginning counts once. What was left in English is left out of the other languages, and languages with
fewer than 100 paragraphs are left out. The texts keep their licence, CC-BY-SA-3.0.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from benchmarks.debian import fetch

PACKAGE = "gnome-user-docs"
PARAGRAPH = "{http://projectmallard.org/1.0/}p"
ENGLISH = "C"
LENGTH, FEWEST = 20, 100
SHARES = {"test": 0.2, "val": 0.05}


class Paragraph(NamedTuple):
    """A translated paragraph.

    Args:
        language: its code, as in the package's folders.
        page: path of the page, the same in all languages.
        number: of the paragraph on the page, from 0.
        text: with single spaces.
    """

    language: str
    page: str
    number: int
    text: str

    @property
    def split(self) -> str:
        """The split of its page."""
        return split_of(self.page)


def split_of(page: str) -> str:
    """Return the split of a page in all languages: drawn by its hash."""
    place = int.from_bytes(hashlib.sha256(page.encode()).digest()[:8], "big") / 2**64
    for split, share in SHARES.items():
        if place < share:
            return split
        place -= share
    return "train"


def paragraphs(root: Path) -> Iterator[Paragraph]:
    """Yield all paragraphs of at least ``LENGTH`` characters below ``usr/share/help``, in the order of languages and pages."""
    for path in sorted(root.rglob("*.page")):
        language, *rest = path.relative_to(root).parts
        for number, part in enumerate(ElementTree.parse(path).iter(PARAGRAPH)):
            text = " ".join("".join(part.itertext()).split())
            if len(text) >= LENGTH:
                yield Paragraph(language, "/".join(rest), number, text)


def chosen(found: list[Paragraph]) -> list[Paragraph]:
    """Return translated paragraphs, each beginning once in a language, of languages that have enough of them."""
    english = {paragraph.text for paragraph in found if paragraph.language == ENGLISH}
    once = {(x.language, x.text[:LENGTH]): x for x in reversed(found) if x.language == ENGLISH or x.text not in english}
    counts = Counter(language for language, _ in once)
    return sorted(paragraph for paragraph in once.values() if counts[paragraph.language] >= FEWEST)


def write_list(kept: list[Paragraph], path: Path, length: int | None, splits: tuple[str, ...]) -> Path:
    """Write JSON lines: key, text up to a length, label and split."""
    with path.open("w", encoding="utf-8") as file:
        for paragraph in kept:
            if paragraph.split in splits:
                key = f"{paragraph.language}/{paragraph.page.removesuffix('.page')}/{paragraph.number:03}"
                line = {"key": key, "text": paragraph.text[:length], "label": paragraph.language, "split": paragraph.split}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return path


def main() -> None:
    """Fetch, choose, split and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to: packages/, paragraphs/ and beginnings/")
    folder = parser.parse_args().folder
    kept = chosen(list(paragraphs(fetch(folder / "packages", [PACKAGE]) / "usr/share/help")))
    sizes, languages = Counter(x.split for x in kept), Counter(x.language for x in kept)
    said = ", ".join(f"{split} {sizes[split]:,}" for split in ("train", "val", "test"))
    (most, count), *_ = languages.most_common(1)
    print(f"{len(languages)} languages, {len({x.page for x in kept})} pages, paragraphs: {said}; most are {most}: {count / len(kept):.3f}")
    for name, length, splits in (("paragraphs", None, ("train", "val")), ("beginnings", LENGTH, ("train", "val", "test"))):
        listed = write_list(kept, folder / f"{name}.jsonl", length, splits)
        columns = ["--text-columns", "text", "--label-column", "label", "--split-column", "split", "--key-column", "key"]
        write = ["shards", "write", str(listed), "--to", str(folder / name), *columns, "--workers", "0"]
        subprocess.run([sys.executable, "-m", "multimodal", *write], check=True)


if __name__ == "__main__":
    main()
