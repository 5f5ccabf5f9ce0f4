"""Files of words and their tags -> sentences."""

from __future__ import annotations

import re
from typing import NamedTuple

from multimodal.tokenizers.text.decode import decode_text
from multimodal.tokenizers.text.json_entries import read_object

DOCUMENT = "-DOCSTART-"
_OBJECT = re.compile(rb'(\xef\xbb\xbf)?\s*\{\s*"[^"\n]*"\s*:')


class TaggedWords(NamedTuple):
    """The words of a file.

    Args:
        words: of all sentences, none of them empty.
        tags: a name for each; None: the file has none.
        sentences: the number of the sentence of each word, ascending from 0.
    """

    words: list[str]
    tags: list[str] | None
    sentences: list[int]


def read_tagged_words(data: bytes, max_bytes: int = 2**24) -> TaggedWords:
    r"""Return the words of a file in UTF-8, of either layout.

    CoNLL: a line for each word, which stands in the first column, and its tag in the last; columns are parted by tabs, or without any by
    blanks. Empty lines part sentences; lines ``-DOCSTART-`` and comments (``#`` and a blank, where a sentence begins) are passed over.
    Files of one column have words alone.

    JSON: an object with ``words``, a list of texts, and ``tags``, as many texts, or no tags. The words are one sentence; or both are lists
    of such lists, for each sentence one.

    Args:
        data: the file.
        max_bytes: of the file, at most.

    Raises:
        ValueError: the file is of neither layout, has no words, or a word without a tag among others with one; the message says where.
    """
    found = _of_json(data, max_bytes) if _OBJECT.match(data) else _of_columns(decode_text(data, max_bytes))
    if not found.words:
        raise ValueError("the file has no words.")
    return found


def _of_columns(text: str) -> TaggedWords:
    words: list[str] = []
    tags: list[str] = []
    sentences: list[int] = []
    sentence, begun, width = 0, False, 0
    for number, line in enumerate(text.split("\n"), 1):
        columns = [column.strip() for column in line.split("\t")] if "\t" in line.strip() else line.split()
        if not columns or columns[0] == DOCUMENT:
            sentence, begun = sentence + begun, False
            continue
        if not begun and columns[0] == "#":
            continue
        width, begun = width or min(len(columns), 2), True
        if min(len(columns), 2) != width or not columns[0] or not columns[-1]:
            wanted = "a word and its tag" if width == 2 else "a word alone, as in the lines before"
            raise ValueError(f"line {number} must hold {wanted}, got {line[:60]!r}.")
        words.append(columns[0])
        tags.append(columns[-1])
        sentences.append(sentence)
    return TaggedWords(words, tags if width == 2 else None, sentences)


def _of_json(data: bytes, max_bytes: int) -> TaggedWords:
    entries = read_object(data, max_bytes)
    if "words" not in entries:
        raise ValueError(f"no entry 'words'; there are {', '.join(sorted(entries)) or 'none'}.")
    words, sentences = _flat("words", entries["words"])
    if entries.get("tags") is None:
        return TaggedWords(words, None, sentences)
    tags, places = _flat("tags", entries["tags"])
    if places != sentences:
        raise ValueError(f"there are {len(words)} words and {len(tags)} tags, or they are not the same number in every sentence.")
    return TaggedWords(words, tags, sentences)


def _flat(name: str, given: object) -> tuple[list[str], list[int]]:
    """Return the texts of a list, or of a list of lists, and the number of the sentence of each."""
    rows = given if isinstance(given, list) and given and all(isinstance(row, list) for row in given) else [given]
    for row in rows:
        if not isinstance(row, list) or not all(isinstance(entry, str) and entry.strip() for entry in row):
            raise ValueError(f"{name} must be a list of texts that are not empty, or a list of such lists, got {str(row)[:60]!r}.")
    rows = [row for row in rows if row]
    return [entry for row in rows for entry in row], [number for number, row in enumerate(rows) for _ in row]
