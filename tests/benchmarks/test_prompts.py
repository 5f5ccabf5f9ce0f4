"""Transcripts of telephone prompts: what is said, and which split a text is in."""

import gzip
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.speech.data import SPLITS, summary, write_files
from benchmarks.speech.prompts import prompts, read_list, split_of, spoken
from benchmarks.speech.run import main

LIST = """\ufeff; Remark: none

digits/1: one
digits/2: two
menu: Press 1, or 2 now.
again: press one or two now
letters/dollar: dollar [$]
"""
TEXTS = {"digits/1": "one", "digits/2": "two"}


def test_lists_are_read_without_remarks() -> None:
    texts = read_list(LIST.encode())
    assert list(texts) == ["digits/1", "digits/2", "menu", "again", "letters/dollar"] and texts["menu"] == "Press 1, or 2 now."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Press 1, or 2 now.", "Press one, or two now."),
        ("dollar [$]", "dollar"),
        ("space [ ]", "space"),
        ("press 7", ""),  # the list has no word for it
        ("press 12", ""),
        ("3D audio", ""),
        ("(2 seconds of silence)", ""),
        ("[ascending tones]", ""),
        ("followed by #", ""),
        ("<beep ascending>", ""),
        ("", ""),
    ],
)
def test_what_is_not_written_in_words_is_no_transcript(text: str, expected: str) -> None:
    assert spoken(text, TEXTS) == expected


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """A package of an English list and its sounds."""
    document = tmp_path / "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    document.parent.mkdir(parents=True)
    document.write_bytes(gzip.compress((LIST + "tone: [a tone]\nfoot: ногой\n").encode()))
    for name in ("digits/1", "digits/2", "menu", "again", "letters/dollar", "tone", "foot", "unlisted"):
        sound = tmp_path / f"usr/share/asterisk/sounds/en_US_f_X/{name}.wav"
        sound.parent.mkdir(parents=True, exist_ok=True)
        sound.write_bytes(name.encode())
    return tmp_path


def test_recordings_of_one_text_are_in_one_split(unpacked: Path, tmp_path: Path) -> None:
    found, others = prompts(unpacked, "en")
    assert others == 3 and [prompt.read for prompt in found] == ["press one or two now", "one", "two", "dollar", "press one or two now"]
    counts = write_files(found, "en", tmp_path / "files")
    assert sum(counts[split]["en"] for split in SPLITS) == 5
    files = {path.relative_to(tmp_path / "files").parts[0]: path for path in (tmp_path / "files").rglob("*.txt")}
    assert set(files) == {split_of(prompt.read) for prompt in found}
    again, menu = ((tmp_path / "files" / split_of("press one or two now") / "en" / f"{name}.txt").read_text() for name in ("again", "menu"))
    assert (again, menu) == ("press one or two now\n", "Press one, or two now.\n")
    assert "1 prompts say what another says; 3 sounds" in summary(found, others, counts, "en")


def test_a_tenth_of_the_texts_tests_and_a_tenth_validates() -> None:
    counts = Counter(split_of(f"text {number}") for number in range(2000))
    assert 160 < counts["test"] < 240 and 160 < counts["val"] < 240 and set(counts) == set(SPLITS)


def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="error: no shards in"):
        main([str(tmp_path)])
    with pytest.raises(SystemExit, match="error: en, ru have different alphabets"):
        main([str(tmp_path), "--languages", "en", "ru"])
