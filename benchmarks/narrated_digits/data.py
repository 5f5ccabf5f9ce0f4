"""Shots with labels, for the encoder of films, and films with captions, for VideoBERT; of digits that only one of the two shows.

Letters in shapes: n images, f frames, h height, w width.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.demo.digits import Counts, made_once
from benchmarks.moving_digits.films import DIRECTIONS, TRAIN_PER_DIGIT, Look, Move, digit_images, make_frames, write_film
from benchmarks.narrated_digits.sentences import DIGITS, WAYS, plain_sentence, sentence, subrip

LOOK = Look(speed=0.75, pieces=3)
FRAMES_PER_SECOND, CLIP_FRAMES, CLIPS_OF_A_MOVE, MOVES = 8, 8, 2, 6
MOVE_SECONDS = CLIP_FRAMES * CLIPS_OF_A_MOVE / FRAMES_PER_SECOND
SHOTS = {"train": 6000, "val": 400}
"""Split -> number of shots, one clip each."""
FILMS = {"train": 1000, "val": 60, "test": 150}
"""Split -> number of films, of ``MOVES`` moves each."""
DIGITS_OF_SHOTS = 300
"""Images of each digit that shots show; films for training show the other 100, those for testing another 100."""
TABLE, SAID, TRUTH = "films.csv", "sentences.txt", "moves.csv"
Digits = tuple[np.ndarray, np.ndarray]
"""Images ``(n, 28, 28)`` and the digit of each ``(n,)``."""


class Told(NamedTuple):
    """A move of a film, and what is said of it.

    Args:
        key: of the film.
        number: of the move in the film, from 0.
        digit: from 0 to 9.
        way: place in ``WAYS``.
        said: the sentence.
    """

    key: str
    number: int
    digit: int
    way: int
    said: str


def make_data(folder: Path) -> None:
    """Write ``folder/shots`` and ``folder/films``, and shards of both, where they are not there."""
    for kind, counts, write in (("shots", SHOTS, write_shots), ("films", FILMS, write_films)):
        made_once(folder / kind, {"what": f"narrated digits, {kind}", "version": 1, "counts": counts}, partial(write, counts))
        write_shards(folder / kind, folder / "shards" / kind)


def write_shards(source: Path, shards: Path) -> None:
    """Write shards of the files in a table, where there are none."""
    if not (shards / "index.json").is_file():
        command = ["shards", "write", str(source / TABLE), "--to", str(shards), "--split-column", "split"]
        subprocess.run([sys.executable, "-m", "multimodal", *command], check=True)


def digits_of(kind: str, split: str) -> Digits:
    """Return the images that shots or films of a split show, no image in two of the three: shots, films to learn from, films for testing.

    Args:
        kind: "shots" or "films".
        split: "train", "val" or "test"; the films of val show digits of those for training.
    """
    images, digits = _all_digits("test" if split == "test" else "train")
    if split == "test":
        return images, digits
    of_shots = np.arange(len(digits)) % TRAIN_PER_DIGIT < DIGITS_OF_SHOTS
    chosen = of_shots if kind == "shots" else ~of_shots
    return images[chosen], digits[chosen]


@lru_cache(maxsize=2)
def _all_digits(split: str) -> Digits:
    return digit_images(split)


def write_shots(counts: dict[str, int], folder: Path) -> Counts:
    """Write films of one clip and one move each, and a table with the label of each: digit and way, as in "seven northwest"."""
    return _write(counts, folder, 0, partial(_write_shot, folder))


def write_films(counts: dict[str, int], folder: Path) -> Counts:
    """Write films of ``MOVES`` moves, captions, a table of both, one of all moves, and the sentences of the training films.

    What is said in the films for testing is in one wording, so that sentences of one meaning are equal.
    """
    told: list[Told] = []
    found = _write(counts, folder, 1, partial(_write_film, folder, told))
    _write_table(folder / TRUTH, Told._fields, told)
    (folder / SAID).write_text("\n".join(move.said for move in told if move.key.startswith("train/")) + "\n")
    return found


def read_moves(folder: Path, split: str) -> list[Told]:
    """Return the moves of the films of a split."""
    with (folder / TRUTH).open(newline="") as file:
        rows = [Told(key, int(number), int(digit), int(way), said) for key, number, digit, way, said in list(csv.reader(file))[1:]]
    return [move for move in rows if move.key.startswith(f"{split}/")]


WriteOne = Callable[[str, np.random.Generator, Digits], dict[str, str]]
"""The path of a film without its ending, what is drawn from and digits -> a row of the table."""


def _write(counts: dict[str, int], folder: Path, seed: int, write_one: WriteOne) -> Counts:
    random, rows = np.random.default_rng(seed), []
    for split, count in counts.items():
        digits = digits_of(folder.name.removesuffix(".partial"), split)
        (folder / split).mkdir(parents=True)
        rows += [{"split": split, **write_one(f"{split}/{number:05d}", random, digits)} for number in range(count)]
    _write_table(folder / TABLE, tuple(rows[0]), [tuple(row.values()) for row in rows])
    return {split: {"films": count} for split, count in counts.items()}


def _write_shot(folder: Path, path: str, random: np.random.Generator, digits: Digits) -> dict[str, str]:
    frames, digit, way = _shot(digits, random, CLIP_FRAMES)
    write_film(frames, folder / f"{path}.mp4", FRAMES_PER_SECOND)
    return {"film": f"{path}.mp4", "label": f"{DIGITS[digit]} {WAYS[way]}"}


def _write_film(folder: Path, told: list[Told], path: str, random: np.random.Generator, digits: Digits) -> dict[str, str]:
    shots = [_shot(digits, random, CLIP_FRAMES * CLIPS_OF_A_MOVE) for _ in range(MOVES)]
    write_film(np.concatenate([frames for frames, _, _ in shots]), folder / f"{path}.mp4", FRAMES_PER_SECOND)
    say = plain_sentence if path.startswith("test/") else partial(sentence, random=random)
    own = [Told(path, number, digit, way, say(digit, way)) for number, (_, digit, way) in enumerate(shots)]
    (folder / f"{path}.srt").write_text(subrip([move.said for move in own], MOVE_SECONDS))
    told += own
    return {"film": f"{path}.mp4", "srt": f"{path}.srt"}


def _shot(digits: Digits, random: np.random.Generator, num_frames: int) -> tuple[np.ndarray, int, int]:
    """Return pictures ``(f, h, w)`` of any digit that goes any way, which digit it is, and the way."""
    images, names = digits
    row, way = random.integers(len(images)), int(random.integers(len(DIRECTIONS)))
    return make_frames(images[row], [Move(DIRECTIONS[way], num_frames)], images, random, LOOK), int(names[row]), way


def _write_table(path: Path, header: tuple[str, ...], rows: list[tuple]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
