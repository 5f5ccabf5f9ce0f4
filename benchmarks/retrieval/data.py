"""Pairs of items as shards; nothing is installed.

``python -m benchmarks.retrieval.data FOLDER`` fetches two Debian packages with ``apt-get download`` into ``FOLDER/packages``, and writes

- ``FOLDER/translations``: paragraphs of GNOME's manual (``gnome-user-docs``, 8.5 MB) with the fields ``english.txt`` and ``german.txt``,
  those that stand at the same place of pages with equally many paragraphs. The hash of a page's name decides the split.
- ``FOLDER/stamps``: pictures of Tux Paint (``tuxpaint-stamps-default``, 161 MB) with their English captions, fields ``png`` and ``txt``.
  The hash of a caption decides the split, so that no caption of the test is one of training.

The texts keep their licence, CC-BY-SA-3.0, and the pictures theirs, GPL-2.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.debian import fetch

MANUAL, STAMPS = "gnome-user-docs", "tuxpaint-stamps-default"
PARAGRAPH = "{http://projectmallard.org/1.0/}p"
SHORTEST = 20
SHARES = {"test": 0.2, "val": 0.05}


def split_of(name: str) -> str:
    """Return the split, drawn by a hash."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    for split, share in SHARES.items():
        if place < share:
            return split
        place -= share
    return "train"


def paragraphs(page: Path) -> list[str]:
    """Return the paragraphs of a page, with single spaces."""
    return [" ".join("".join(part.itertext()).split()) for part in ElementTree.parse(page).iter(PARAGRAPH)]


def translations(root: Path) -> Iterator[dict[str, str]]:
    """Yield the paragraphs of the manual with their translations, but for those left in English; ``root``: ``usr/share/help``."""
    for path in sorted((root / "C").rglob("*.page")):
        page = path.relative_to(root / "C")
        other = root / "de" / page
        texts = [paragraphs(path), paragraphs(other) if other.is_file() else []]
        if len(texts[0]) != len(texts[1]):
            continue
        for number, (english, german) in enumerate(zip(*texts, strict=True)):
            if min(len(english), len(german)) >= SHORTEST and english != german:
                key = f"{page.with_suffix('')}/{number:03}"
                yield {"key": key, "english": english, "german": german, "split": split_of(str(page))}


def stamps(root: Path) -> Iterator[dict[str, str]]:
    """Yield the pictures with their captions; ``root``: ``usr/share/tuxpaint/stamps``."""
    for path in sorted(root.rglob("*.png")):
        said = path.with_suffix(".txt")
        caption = said.read_text(encoding="utf-8").split("\n")[0].strip() if said.is_file() else ""
        if caption:
            key = str(path.relative_to(root).with_suffix(""))
            yield {"key": key, "png": str(path.resolve()), "txt": caption, "split": split_of(caption.lower())}


def write(rows: Iterable[dict[str, str]], folder: Path, *columns: str) -> None:
    """Write rows as shards, and print how many samples each split has."""
    found = list(rows)
    sizes = Counter(row["split"] for row in found)
    print(f"{folder}: " + ", ".join(f"{split} {sizes[split]:,}" for split in ("train", "val", "test")), flush=True)
    if (folder / "index.json").is_file():
        return
    listed = folder.with_suffix(".jsonl")
    listed.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")
    options = ["--to", str(folder), "--key-column", "key", "--split-column", "split", "--workers", "0", *columns]
    subprocess.run([sys.executable, "-m", "multimodal", "shards", "write", str(listed), *options], check=True)


def main() -> None:
    """Fetch and write both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to: packages/, translations/ and stamps/")
    folder = parser.parse_args().folder
    unpacked = fetch(folder / "packages", [MANUAL, STAMPS]) / "usr/share"
    write(translations(unpacked / "help"), folder / "translations", "--text-columns", "english,german")
    write(stamps(unpacked / "tuxpaint/stamps"), folder / "stamps", "--path-columns", "png", "--text-columns", "txt")


if __name__ == "__main__":
    main()
