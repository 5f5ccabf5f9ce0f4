"""Bach chorales and fiddle tunes as MIDI files, from the corpus in the package music21; nothing is downloaded.

The chorales are MusicXML, which music21 parses in about 60 ms each. The tunes (O'Neill 1850, Ryan's Mammoth Collection) are ABC text,
which symusic parses in about 2 ms each once it is cleaned of fingerings and ornaments. The corpus may not be redistributed: what is
written here is for this machine.

``python -m benchmarks.demo.tunes FOLDER``
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import symusic
import torch
from torch import Tensor

from benchmarks.demo.digits import Counts, made_once, print_counts
from multimodal.tokenizers.midi import Column, sort_notes, write_notes

VERSION = 3
TICKS_PER_BEAT = 480
MIN_NOTES = 24
VELOCITY = 80
COLLECTIONS = ("oneills1850", "ryansMammoth")
LABELS = {
    "reel": "reel",
    "hornpipe": "hornpipe",
    "jig": "jig",
    "double jig": "jig",
    "slip jig": "slip_jig",
    "slipjig": "slip_jig",
    "strathspey": "strathspey",
}
UNLABELLED = "tune"
METRES = {"C": (4, 4), "C|": (2, 2)}


class Piece(NamedTuple):
    """A piece of music: notes as ``multimodal.tokenizers.midi.read_notes`` gives them."""

    name: str
    label: str
    notes: Tensor


def write_tunes(folder: str | Path, num_chorales: int = 300, num_tunes: int = 1800) -> Counts:
    """Write ``train|val|test/<label>/<name>.mid`` and return how many of each; progress and failures are printed.

    Labels: chorale; reel, hornpipe, jig (double jigs too), slip_jig, strathspey; and tune, where the collection gives no or another
    type. Typed tunes come first, in an order that is random but fixed. The splits (7 : 1 : 2) are drawn by the opening of the
    melody, so that a tune that occurs twice is in one split. Repeats are not played twice. Nothing is redone where the folder is
    complete.

    Args:
        folder: made if needed.
        num_chorales: at most; music21 has 368 in four parts.
        num_tunes: at most; there are about 3,000, of which about 1,800 are typed.

    Raises:
        ValueError: the folder holds something else, or nothing could be read.
    """
    settings = {"what": "tunes", "version": VERSION, "num_chorales": num_chorales, "num_tunes": num_tunes}

    def write(target: Path) -> Counts:
        counts: Counts = {"train": {}, "val": {}, "test": {}}
        for pieces in (read_tunes(num_tunes), read_chorales(num_chorales)):
            for piece in pieces:
                split = split_of(piece.notes)
                path = target / split / piece.label / f"{piece.name}.mid"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(write_notes(piece.notes))
                counts[split][piece.label] = counts[split].get(piece.label, 0) + 1
        return {split: dict(sorted(labels.items())) for split, labels in counts.items()}

    return made_once(Path(folder), settings, write)


def split_of(notes: Tensor) -> str:
    """Return train, val or test, by the opening of the melody."""
    return split_of_opening(opening_of(notes))


def opening_of(notes: Tensor) -> list[int]:
    """Return the first 12 intervals of the highest notes.

    Neither the key nor note values count: one tune is in 2/2 in one collection and in 2/4 with half the values in the other.
    """
    starts, index = torch.unique(notes[:, Column.START], return_inverse=True)
    highest = torch.zeros_like(starts).scatter_reduce(0, index, notes[:, Column.PITCH], "amax")
    return highest[:13].diff().tolist()


def split_of_opening(opening: list[int]) -> str:
    """Return train, val or test (7 : 1 : 2), by a hash."""
    number = int(hashlib.sha256(json.dumps(opening).encode()).hexdigest()[:8], 16) % 10
    return {0: "val", 1: "test", 2: "test"}.get(number, "train")


def read_chorales(limit: int) -> Iterator[Piece]:
    """Yield Bach's chorales in four parts, in an order that is random but fixed."""
    from music21 import converter

    paths = sorted((corpus() / "bach").glob("*.mxl"), key=lambda path: _random_order(path.name))
    started, done, refused = time.monotonic(), 0, Counter()
    for path in paths:
        if done == limit:
            break
        try:
            notes = _score_notes(converter.parse(path, forceSource=True))
        except ValueError as reason:
            refused[str(reason)] += 1
            continue
        except Exception as error:  # music21 raises anything; what failed is printed
            refused[f"music21 failed: {type(error).__name__}"] += 1
            continue
        done += 1
        if done % 50 == 0:
            print(f"chorales: {done} in {time.monotonic() - started:.0f} s", flush=True)
        yield Piece("bach-" + path.stem, "chorale", notes)
    _report("chorales", done, limit, started, refused)


def read_tunes(limit: int) -> Iterator[Piece]:
    """Yield fiddle tunes, those with a dance type first."""
    texts = [text for collection in COLLECTIONS for text in abc_texts(collection)]
    texts.sort(key=lambda text: (text[1] == UNLABELLED, _random_order(text[0])))
    started, done, refused = time.monotonic(), 0, Counter()
    with tempfile.TemporaryFile() as messages:
        for name, label, abc in texts:
            if done == limit:
                break
            try:
                notes = abc_notes(abc, messages)
            except ValueError as reason:
                refused[str(reason)] += 1
                continue
            done += 1
            if done % 500 == 0:
                print(f"tunes: {done} in {time.monotonic() - started:.0f} s", flush=True)
            yield Piece(name, label, notes)
    _report("tunes", done, limit, started, refused)


def _report(what: str, done: int, limit: int, started: float, refused: Counter) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in refused.most_common()) or "none"
    print(f"{what}: {done} in {time.monotonic() - started:.0f} s; left out: {reasons}", flush=True)
    if limit and not done:
        raise ValueError(f"none of music21's {what} could be read: {reasons}.")


class Tune(NamedTuple):
    """A tune as ABC notation has it.

    Args:
        notes: ``(n, 4)``, from tick 0.
        pickup: ticks before the first bar line.
        bar: ticks of a full bar at the start; 0: there is no metre.
        metres: ``(m, 3)``, from which tick on, numerator, denominator.
    """

    notes: np.ndarray
    pickup: int
    bar: int
    metres: np.ndarray


def abc_notes(abc: str, messages: BinaryIO) -> Tensor:
    """Return the notes of one tune in ABC notation, with the first full bar on a multiple of 1920 ticks; see ``read_abc``."""
    tune = read_abc(abc, messages)
    return _after_pickup(torch.from_numpy(tune.notes), tune.pickup, tune.bar)


def read_abc(abc: str, messages: BinaryIO) -> Tune:
    """Return one tune in ABC notation.

    Args:
        abc: the tune, from its ``X:`` line.
        messages: a file with a descriptor, which takes what the parser prints.

    Raises:
        ValueError: the parser met an error, or there are fewer than 24 notes.
    """
    head, body = clean_abc(abc)
    with _printed_to(messages):
        table, metres = _parse_abc(head + body)
    messages.seek(0)
    if b"Error" in messages.read():
        raise ValueError("error in the ABC text")
    if len(table) < MIN_NOTES:
        raise ValueError(f"fewer than {MIN_NOTES} notes")
    with _printed_to(messages):  # a first bar alone is full of warnings
        first_bar, _ = _parse_abc(head + re.split(r"[|\n]", body.lstrip("| \n"), maxsplit=1)[0] + "|\n")
    pickup = int((first_bar[:, Column.START] + first_bar[:, Column.DURATION]).max()) if len(first_bar) else 0
    return Tune(table, pickup, _bar_ticks(head), metres)


def clean_abc(abc: str) -> tuple[str, str]:
    """Return the head (metre, unit, key) and the music without fingerings, ornaments, repeats and comments.

    The dance type goes too: the parser plays hornpipes unevenly, which would tell the label.
    """
    head, body = ["X:1"], []
    for mail, plain in (("=\n", ""), ("=20", " "), ("=3D", "=")):  # some tunes were mailed as quoted-printable
        abc = abc.replace(mail, plain)
    for line in abc.splitlines():
        line = line.split("%")[0].strip()
        if re.match(r"[A-Za-z]:(?![|:])", line):
            if line[0] in "MLK":
                (body if body else head).append(line)
        elif line:
            line = re.sub(r'"[^"]*"|![^!]*!|\{[^}]*\}|\\', "", line)  # fingerings, decorations, grace notes, continuation
            line = re.sub(r"(?:\[\||[|:])[|:\]]*(?:\s*\[?[12](?!\d))?|\[[12]", "|", line)  # repeats and endings
            body.append(re.sub(r"[.~uvTHkUS+]", "", line))  # bowing, staccato, trills
    return "\n".join(head) + "\n", "\n".join(body) + "\n"


def abc_texts(collection: str) -> Iterator[tuple[str, str, str]]:
    """Yield (name, label, text) for each tune of a collection's files."""
    for path in sorted((corpus() / collection).glob("*.abc")):
        for text in re.split(r"(?m)^(?=X:)", path.read_text(encoding="latin-1"))[1:]:
            number, dance = re.match(r"X:\s*(\d*)", text)[1], re.search(r"(?m)^R:\s*(.*)$", text)
            label = LABELS.get(dance[1].strip().lower(), UNLABELLED) if dance else UNLABELLED
            yield f"{collection}-{path.stem}-{number}", label, text


def _parse_abc(abc: str) -> tuple[np.ndarray, np.ndarray]:
    """Return notes and metres."""
    try:
        score = symusic.Score.from_abc(abc)
    except RuntimeError as error:
        raise ValueError("symusic failed") from error  # the message has a random path
    columns = [track.notes.numpy() for track in score.tracks]
    table = np.concatenate([_table(x["time"] - 1, x["pitch"], x["duration"] + 1) for x in columns] or [np.zeros((0, 4), np.int64)])
    metres = np.array([(x.time, x.numerator, x.denominator) for x in score.time_signatures], np.int64).reshape(-1, 3)
    return table[np.argsort(table[:, Column.START], kind="stable")], metres  # each note starts a tick late, 480 ticks to a beat


def _score_notes(score: object) -> Tensor:
    """Return the notes of a music21 score, ties joined, with the first full bar on a multiple of 1920 ticks."""
    parts = list(score.parts)
    if len(parts) != 4:
        raise ValueError("not four parts")
    for part in parts:
        part.stripTies(inPlace=True)  # a copy would take twice as long as parsing
    found = [
        (float(note.offset), pitch.midi, float(note.quarterLength))
        for part in parts
        for note in part.flatten().notes
        for pitch in note.pitches
        if note.quarterLength > 0
    ]
    if len(found) < MIN_NOTES:
        raise ValueError(f"fewer than {MIN_NOTES} notes")
    start, pitch, duration = np.array(found).T
    ticks = [np.rint(column * TICKS_PER_BEAT).astype(np.int64) for column in (start, duration)]
    bar = parts[0].getElementsByClass("Measure")[0]
    pickup, full = (round(float(x) * TICKS_PER_BEAT) for x in (bar.duration.quarterLength, bar.barDuration.quarterLength))
    return _after_pickup(torch.from_numpy(_table(ticks[0], pitch.astype(np.int64), ticks[1])), pickup, full)


def _after_pickup(notes: Tensor, pickup: int, bar: int) -> Tensor:
    if 0 < pickup < bar:
        notes[:, Column.START] += 4 * TICKS_PER_BEAT - pickup % (4 * TICKS_PER_BEAT)
    return sort_notes(notes)


def _bar_ticks(head: str) -> int:
    metre = re.search(r"(?m)^M:\s*(C\||C|(\d+)/(\d+))", head)
    if not metre:
        return 0
    beats, unit = METRES.get(metre[1]) or (int(metre[2]), int(metre[3]))
    return 4 * TICKS_PER_BEAT * beats // unit


def _table(start: np.ndarray, pitch: np.ndarray, duration: np.ndarray) -> np.ndarray:
    return np.stack([start, pitch, duration, np.full_like(start, VELOCITY)], axis=1).astype(np.int64)


def _random_order(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def corpus() -> Path:
    import music21

    return Path(music21.__file__).parent / "corpus"


@contextmanager
def _printed_to(file: BinaryIO) -> Iterator[None]:
    """Send what C code prints into ``file``, emptied first: the ABC parser knows no other way to report an error."""
    sys.stdout.flush()
    sys.stderr.flush()
    file.seek(0)
    file.truncate()
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    try:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
        yield
    finally:
        for descriptor, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


if __name__ == "__main__":
    print_counts(write_tunes(sys.argv[1]))
