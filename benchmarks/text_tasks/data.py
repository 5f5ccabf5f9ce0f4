"""Three tasks from the English pages of GNOME's manual, whose labels its authors made; nothing is installed.

``python -m benchmarks.text_tasks.data FOLDER`` fetches the Debian package ``gnome-user-docs`` with ``apt-get download`` (8.5 MB) into
``FOLDER/packages`` and writes shards, split by page:

- ``tags``: the words of a page, tagged by its markup: parts of the screen (``gui``), keys, applications, files and commands, as BIO.
- ``pairs``: a paragraph, and the next one of its page, or one of another page of the same split: is it the next?
- ``questions``: a sentence of a page with the name of a part of the screen blotted out; the rest of the page; where that name stands in it.

The texts keep their licence, CC-BY-SA-3.0.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from benchmarks.debian import fetch
from benchmarks.languages.data import PACKAGE, PARAGRAPH, split_of

SPACE = "{http://projectmallard.org/1.0/}"
KINDS = {"gui": "gui", "key": "key", "app": "app", "file": "file", "cmd": "command", "code": "command"}
"""Elements of Mallard -> kinds of entities; the innermost element decides."""
CLASSES = ("O", *(f"{prefix}-{kind}" for kind in dict.fromkeys(KINDS.values()) for prefix in "BI"))
WORD = re.compile(r"\w+|[^\w\s]")
BLANK = "___"
SHORTEST = 40


class Piece(NamedTuple):
    """Characters of a paragraph inside one element.

    Args:
        text: as it stands.
        kind: of entity; None: of none.
        element: a number for each element, so that two entities in a row are two.
    """

    text: str
    kind: str | None
    element: int


class Word(NamedTuple):
    """A word or a mark of punctuation, and its tag."""

    text: str
    tag: str


class Mark(NamedTuple):
    """A marked part of a paragraph whose white space is single blanks: its kind, and its characters."""

    kind: str
    start: int
    end: int


def pieces(element: ElementTree.Element, kind: str | None = None) -> Iterator[Piece]:
    """Yield what stands in an element, in order."""
    kind = KINDS.get(element.tag.removeprefix(SPACE), kind)
    if element.text:
        yield Piece(element.text, kind, id(element))
    for child in element:
        yield from pieces(child, kind)
        if child.tail:
            yield Piece(child.tail, kind, id(element))


def tagged(found: list[Piece]) -> list[Word]:
    """Return the words of a paragraph with their tags."""
    words, before = [], None
    for piece in found:
        for text in WORD.findall(piece.text):
            inside = piece.kind is not None and before == piece.element
            words.append(Word(text, "O" if piece.kind is None else f"{'I' if inside else 'B'}-{piece.kind}"))
            before = piece.element
    return words


def marked(found: list[Piece]) -> tuple[str, list[Mark]]:
    """Return the text of a paragraph with single blanks, and its marked parts."""
    text, marks = "", []
    for piece in found:
        own = re.sub(r"\s+", " ", piece.text)
        own = own.lstrip() if not text or text.endswith(" ") else own
        start = len(text) + len(own) - len(own.lstrip())
        text += own
        if piece.kind is not None and own.strip():
            marks.append(Mark(piece.kind, start, len(text.rstrip())))
    return text.rstrip(), marks


def paragraphs(path: Path) -> list[list[Piece]]:
    """Return the paragraphs of a page that hold a word."""
    found = (list(pieces(element)) for element in ElementTree.parse(path).iter(PARAGRAPH))
    return [own for own in found if any(WORD.search(piece.text) for piece in own)]


def tag_rows(pages: dict[str, list[list[Piece]]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each page: its words and tags, a list for each paragraph."""
    for page, found in pages.items():
        rows = [tagged(own) for own in found]
        words, tags = [[word.text for word in row] for row in rows], [[word.tag for word in row] for row in rows]
        yield {"key": page, "text": " ".join(marked(own)[0] for own in found), "words": words, "tags": tags}


def pair_rows(pages: dict[str, list[list[Piece]]], seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield rows of two paragraphs, half of them neighbours."""
    texts = {page: [text for own in found if len(text := marked(own)[0]) >= SHORTEST] for page, found in pages.items()}
    others = {split: [(page, text) for page, own in texts.items() if split_of(page) == split for text in own] for split in SPLITS}
    generator = random.Random(seed)
    for page, own in texts.items():
        for number, (first, second) in enumerate(zip(own, own[1:], strict=False)):
            label = "next" if generator.random() < 0.5 else "other"
            while label == "other" and (second in own):
                second = generator.choice([text for name, text in others[split_of(page)] if name != page])
            yield {"key": f"{page}/{number:03}", "a": first, "b": second, "label": label}


def question_rows(pages: dict[str, list[list[Piece]]]) -> Iterator[dict[str, Any]]:
    """Yield rows of a paragraph with a blank, the others of its page, and where what was blotted out is marked in them."""
    for page, found in pages.items():
        own = [marked(row) for row in found]
        for number, (text, marks) in enumerate(own):
            gui = [mark for mark in marks if mark.kind == "gui"]
            context, answers = "", []
            wanted = text[gui[-1].start : gui[-1].end] if gui else None
            for place, (other, there) in enumerate(own):
                if place != number:
                    starts = [mark.start for mark in there if other[mark.start : mark.end] == wanted]
                    answers += [{"text": wanted, "answer_start": len(context) + start} for start in starts]
                    context += other + "\n"
            if gui and answers and text.count(str(wanted)) == 1:
                question = text[: gui[-1].start] + BLANK + text[gui[-1].end :]
                yield {"key": f"{page}/{number:03}", "question": question, "context": context, "answers": answers}


SPLITS = ("train", "val", "test")
TASKS = {"tags": (tag_rows, "text"), "pairs": (pair_rows, "a,b"), "questions": (question_rows, "context")}
"""Name -> what makes the rows, and the columns that become fields."""


def write(folder: Path, name: str, pages: dict[str, list[list[Piece]]]) -> None:
    """Write the rows of a task, and shards of them."""
    make, columns = TASKS[name]
    rows = [{**row, "split": split_of(row["key"] if name == "tags" else row["key"].rpartition("/")[0])} for row in make(pages)]
    listed = folder / f"{name}.jsonl"
    listed.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    sizes = Counter(row["split"] for row in rows)
    print(f"{name}: " + ", ".join(f"{split} {sizes[split]:,}" for split in SPLITS))
    command = ["shards", "write", str(listed), "--to", str(folder / name), "--text-columns", columns]
    command += ["--split-column", "split", "--key-column", "key", "--workers", "0"]
    subprocess.run([sys.executable, "-m", "multimodal", *command], check=True)


def main() -> None:
    """Fetch, read, split and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to: packages/, tags/, pairs/ and questions/")
    folder = parser.parse_args().folder
    root = fetch(folder / "packages", [PACKAGE]) / "usr/share/help/C"
    pages = {str(path.relative_to(root).with_suffix("")): paragraphs(path) for path in sorted(root.rglob("*.page"))}
    pages = {page: found for page, found in pages.items() if found}
    for name in TASKS:
        write(folder, name, pages)


if __name__ == "__main__":
    main()
