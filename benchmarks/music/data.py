"""Shards of real music: dance types, chorales, composers, and what to pretrain on; nothing is downloaded.

``python -m benchmarks.music.data`` reads the corpus of the package music21 (about 10 minutes, once) into ``data/music`` and writes there

- ``dance``: excerpts of 32 notes of fiddle tunes with their type. An excerpt begins at a note drawn at random, which is its tick 0, and
  its file has no metre of its own, so that nobody is told where bars begin. ``dance_tuning``: its training split as train and val.
- ``chorales``: Bach's chorales with a track for each voice; ``chorales_tuning`` likewise.
- ``composers``: excerpts of 64 notes of six composers, and of fiddle tunes.
- ``tunes`` and ``scores``, to pretrain on: all fiddle tunes, and all works of composers, without labels, whole and with their metres, but
  those of a test split, and those that have, in any part, the opening or 16 intervals in a row of a melody that is tested.

A test split is drawn by what a piece sounds like: by a hash of the first 12 intervals of its melody, so that copies of a tune in two
collections, and chorales on one melody, lie on one side. Works of the other composers are drawn as wholes.
"""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.demo.tunes import COLLECTIONS, split_of_opening
from benchmarks.music.corpus import CHORALE, FIDDLE_TUNES, SCORES, VOICES, Piece, read_corpus, score_in
from multimodal.tokenizers.midi.score import Column, Score, write_score

ROOT = Path("data/music")
DANCES = ("hornpipe", "jig", "reel", "slip_jig", "strathspey")
COMPOSERS = ("bach", "beethoven", "haydn", "monteverdi", "mozart", "palestrina")
FIDDLE = "fiddle"
EXCERPT_NOTES, COMPOSER_NOTES = 32, 64
WINDOWS = 4
"""Most excerpts of a piece, for composers."""
MOST_WINDOWS = 400
"""Of a composer in a split."""
RUN = 16
"""Intervals in a row that two melodies have in common only if they are variants of one: 2.6% of the tested excerpts share as many with one
that is learned from, 78% share 8."""
TEST_SHARE = 0.25
"""Of a composer's works."""
TRAIN, VAL, TEST = "train", "val", "test"


class Row(NamedTuple):
    """A sample of shards: a MIDI file, its label and its split."""

    key: str
    path: str
    label: str
    split: str


def main() -> None:
    """Read the corpus, and write all shards; what is there already stays."""
    pieces = read_corpus(ROOT)
    splits = split_pieces(pieces)
    rows = {
        "dance": dance_rows(ROOT, pieces, splits),
        CHORALE + "s": [_row(piece, "", splits[piece.name]) for piece in pieces if piece.label == CHORALE],
        "composers": composer_rows(ROOT, pieces, splits),
    }
    others = pretraining_pieces(ROOT, pieces, splits)
    for name, collections in (("tunes", FIDDLE_TUNES), ("scores", SCORES)):
        rows[name] = [_row(piece, "", splits[piece.name]) for piece in others if piece.collection in collections]
    for name in ("dance", CHORALE + "s"):
        own = rows[name]
        rows[name] = [row._replace(split=TRAIN if row.split == VAL else row.split) for row in own]
        rows[f"{name}_tuning"] = [row for row in own if row.split != TEST]
    for name, own in rows.items():
        write_shards(ROOT, name, own)
    print_counts(rows)


def split_pieces(pieces: Sequence[Piece]) -> dict[str, str]:
    """Return name -> train, val or test: by the opening of the melody, or for composers of larger works by the work."""
    works: dict[str, set[str]] = defaultdict(set)
    for piece in pieces:
        if piece.collection in SCORES and piece.collection != "bach":
            works[piece.collection].add(piece.work)
    held = {work for collection, own in works.items() if collection in COMPOSERS for work in _drawn(own)}
    found = {}
    for piece in pieces:
        by_work = piece.work in works[piece.collection]
        found[piece.name] = (TEST if piece.work in held else TRAIN) if by_work else split_of_opening(list(_melody(piece)))
    return found


def _drawn(works: Iterable[str]) -> list[str]:
    """Return the works of a composer that are tested."""
    ordered = sorted(works, key=_hash)
    return ordered[: max(1, round(TEST_SHARE * len(ordered)))]


def _melody(piece: Piece) -> tuple[int, ...]:
    """Return the opening of the part that has the melody: the soprano, else the highest."""
    return piece.openings[piece.voices.index(VOICES[0]) if VOICES[0] in piece.voices else 0]


def pretraining_pieces(root: Path, pieces: Sequence[Piece], splits: dict[str, str]) -> list[Piece]:
    """Return the pieces of no test split; none has, in any part, the opening or 16 intervals in a row of a melody that is tested."""
    tested = [piece for piece in pieces if splits[piece.name] == TEST and piece.label]
    openings = {_melody(piece) for piece in tested}
    runs = set[bytes]().union(*(melody_runs(score_in(root, piece)) for piece in tested))
    others = [piece for piece in pieces if splits[piece.name] != TEST and not openings.intersection(piece.openings)]
    return [piece for piece in others if runs.isdisjoint(melody_runs(score_in(root, piece), all_parts=True))]


def melody_runs(score: Score, all_parts: bool = False) -> set[bytes]:
    """Return all runs of 16 intervals of the melody, which is the first part, or of all parts."""
    track = score.column(Column.TRACK)
    found: set[bytes] = set()
    for number in track.unique().tolist()[: None if all_parts else 1]:
        intervals = np.diff(score.column(Column.PITCH)[track == number].numpy()).astype(np.int8)
        if len(intervals) >= RUN:
            found.update(run.tobytes() for run in sliding_window_view(intervals, RUN))
    return found


def dance_rows(root: Path, pieces: Sequence[Piece], splits: dict[str, str]) -> list[Row]:
    """Write an excerpt of each tune with a type that is long enough."""
    rows = []
    for piece in pieces:
        if piece.collection in COLLECTIONS and piece.label in DANCES and piece.num_notes >= EXCERPT_NOTES:
            random = np.random.default_rng(int(_hash(piece.name)[:8], 16))
            first = int(random.integers(piece.num_notes - EXCERPT_NOTES + 1))
            rows.append(_write_excerpt(root, "dance", piece, first, EXCERPT_NOTES, str(piece.label), splits[piece.name]))
    return rows


def composer_rows(root: Path, pieces: Sequence[Piece], splits: dict[str, str]) -> list[Row]:
    """Write excerpts of pieces of each composer, and of fiddle tunes, evenly spaced; as many of each at most."""
    counts: Counter[tuple[str, str]] = Counter()
    rows = []
    for piece in sorted(pieces, key=lambda piece: _hash(piece.name)):
        label = FIDDLE if piece.collection in COLLECTIONS else piece.collection
        split = TEST if splits[piece.name] == TEST else TRAIN
        if label not in (*COMPOSERS, FIDDLE) or piece.num_notes < COMPOSER_NOTES or counts[label, split] >= MOST_WINDOWS:
            continue
        number = min(WINDOWS, piece.num_notes // COMPOSER_NOTES)
        for first in np.linspace(0, piece.num_notes - COMPOSER_NOTES, number).astype(int).tolist():
            rows.append(_write_excerpt(root, "composers", piece, first, COMPOSER_NOTES, label, split))
        counts[label, split] += number
    return rows


def excerpt(score: Score, first: int, count: int) -> Score:
    """Return consecutive notes of a score, the first at tick 0, on one track of one program, without metres and tempos."""
    notes: Tensor = score.notes[first : first + count].clone()
    notes[:, Column.START] -= int(notes[0, Column.START])
    notes[:, [Column.PROGRAM, Column.TRACK]] = 0
    return Score(notes)


def _write_excerpt(root: Path, task: str, piece: Piece, first: int, count: int, label: str, split: str) -> Row:
    key = f"{piece.name}-{first}"
    path = root / f"{task}_files" / f"{key}.mid"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(write_score(excerpt(score_in(root, piece), first, count)))
    return Row(_key(key), str(path.relative_to(root)), label, split)


def _row(piece: Piece, label: str, split: str) -> Row:
    return Row(_key(piece.name), f"pieces/{piece.name}.mid", label, split)


def _key(name: str) -> str:
    return name.replace(".", "_")  # keys of shards have no dots


def write_shards(root: Path, name: str, rows: Sequence[Row]) -> None:
    """Write the list and the shards of a task into ``root/name``."""
    table = root / f"{name}.csv"
    labelled = any(row.label for row in rows)
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([column for column in Row._fields if labelled or column != "label"])
        writer.writerows([value for column, value in row._asdict().items() if labelled or column != "label"] for row in rows)
    write = ["shards", "write", str(table), "--root", str(root), "--to", str(root / name), "--split-column", "split"]
    subprocess.run([sys.executable, "-m", "multimodal", *write, "--key-column", "key", "--workers", "0", "--overwrite"], check=True)


def print_counts(rows: Mapping[str, Sequence[Row]]) -> None:
    """Print how many samples of each label each split holds."""
    table = Table("shards", "label", TRAIN, VAL, TEST)
    for name, own in rows.items():
        counts = Counter((row.label, row.split) for row in own)
        for label in sorted({row.label for row in own}):
            table.add_row(name, label, *(f"{counts[label, split]:,}" for split in (TRAIN, VAL, TEST)))
        table.add_row(name, "all", *(f"{sum(row.split == split for row in own):,}" for split in (TRAIN, VAL, TEST)), end_section=True)
    Console(width=100).print(table)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


if __name__ == "__main__":
    main()
