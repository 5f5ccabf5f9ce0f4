"""The corpus of the package music21 as plain MIDI files, each piece read once; nothing is downloaded.

Tunes in ABC notation (fiddle tunes, airs, folk songs) are read by symusic in a few milliseconds each, scores in MusicXML and Humdrum by
music21 in 0.05 to 15 s. The corpus may not be redistributed: what is written here is for this machine.

Letters in shapes: n notes, m metres.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.demo.tunes import COLLECTIONS, LABELS, MIN_NOTES, UNLABELLED, VELOCITY, Tune, abc_texts, corpus, opening_of, read_abc
from multimodal.tokenizers.midi.score import TICKS_PER_BEAT, Column, Score, read_score, sort_notes, write_score

FIDDLE_TUNES = (*COLLECTIONS, "airdsAirs", "miscFolk", "nottingham-dataset")
TUNES = (*FIDDLE_TUNES, "essenFolksong")
SCORES = (
    *("bach", "monteverdi", "mozart", "haydn", "beethoven", "schumann_robert", "schumann_clara", "schubert", "chopin", "handel"),
    *("cpebach", "corelli", "lusitano", "verdi", "weber", "joplin", "beach", "luca", "ciconia", "trecento", "palestrina"),
)
"""Folders of the corpus, in the order in which they are read."""
KINDS = (".mxl", ".musicxml", ".xml", ".krn")
"""Of files, the one that is taken first where a piece is there in several."""
PROGRAMS = (40, 41, 42, 43)
"""Violin, viola, cello, double bass: the highest to the lowest part of any piece, so that a program tells a voice."""
VOICES = ("soprano", "alto", "tenor", "bass")
CHORALE = "chorale"


@dataclass(frozen=True)
class Piece:
    """A piece that was read, or why it was not.

    Args:
        name: collection and name of the file; that of the MIDI file below ``pieces``.
        work: what it is a movement of; its own name where it is a work by itself.
        label: dance type of a tune, ``"chorale"``, or None.
        openings: the first 12 intervals of each part.
        voices: names of the parts, in lower case.
        num_notes: of all parts.
        seconds: of processor time, for reading it.
        error: why it could not be read; None: it was.
    """

    name: str
    work: str
    label: str | None = None
    openings: tuple[tuple[int, ...], ...] = ()
    voices: tuple[str, ...] = ()
    num_notes: int = 0
    seconds: float = 0.0
    error: str | None = None

    @property
    def collection(self) -> str:
        """The folder in the corpus: a composer or a collection of tunes."""
        return self.name.partition("/")[0]


def read_corpus(
    folder: Path, seconds: float = 600.0, limit: int | None = None, collections: Sequence[str] = (*TUNES, *SCORES)
) -> list[Piece]:
    """Write ``pieces/<name>.mid`` below a folder, and a line about each piece to ``pieces.jsonl``; return the pieces that could be read.

    What is in the list is not read again, so that it can be stopped and go on.

    Args:
        folder: where to.
        seconds: of processor time, for what music21 reads; what is left is said, and read by the next call.
        limit: most pieces of a collection; None: all.
        collections: of ``TUNES`` and ``SCORES``, to read.
    """
    table = folder / "pieces.jsonl"
    known = {piece.name for piece in pieces_in(table)}
    (folder / "pieces").mkdir(parents=True, exist_ok=True)
    with table.open("a") as file, tempfile.TemporaryFile() as messages:
        for collection in (name for name in collections if name in TUNES):
            found = [(f"{collection}/{name}", label, abc) for name, label, abc in abc_texts(collection)][:limit]
            new = [(name, label, abc) for name, label, abc in found if name not in known]
            _note(file, (_of_abc(folder, *tune, messages) for tune in new), collection, len(new))
        for collection in (name for name in collections if name in SCORES):
            paths = [(name, path) for name, path in _paths(collection)[:limit] if name not in known]
            seconds -= _note(file, (_of_file(folder, *entry) for entry in paths), collection, len(paths), seconds)
    return [piece for piece in pieces_in(table) if piece.error is None]


def pieces_in(table: Path) -> list[Piece]:
    """Return what the list says, also of pieces that could not be read."""
    lines = [json.loads(line) for line in table.read_text().splitlines()] if table.is_file() else []
    return [Piece(**line | {"openings": tuple(map(tuple, line["openings"])), "voices": tuple(line["voices"])}) for line in lines]


def score_in(folder: Path, piece: Piece) -> Score:
    """Return a piece that was read."""
    return read_score((folder / "pieces" / f"{piece.name}.mid").read_bytes())


def _note(file: Any, pieces: Iterator[Piece], collection: str, count: int, seconds: float = float("inf")) -> float:
    """Write a line for each piece, until there is no time left; say what was done, and return the time that it took."""
    done, refused, spent = 0, Counter[str](), 0.0
    while done < count and spent < seconds:
        piece = next(pieces)
        file.write(json.dumps(asdict(piece)) + "\n")
        file.flush()
        done, spent = done + 1, spent + piece.seconds
        refused.update([piece.error] if piece.error else [])
        if done % 500 == 0:
            print(f"{collection}: {done} of {count} in {spent:.0f} s", flush=True)
    reasons = ", ".join(f"{number} {reason}" for reason, number in refused.most_common()) or "none"
    left = f"; no time for {count - done}" if done < count else ""
    if count:
        print(f"{collection}: {done} in {spent:.0f} s; left out: {reasons}{left}", flush=True)
    return spent


def _timed(folder: Path, piece: Piece, read: Callable[[], Score]) -> Piece:
    """Read a piece, write its MIDI file, and return what is known about it."""
    started, facts = time.process_time(), asdict(piece)
    try:
        score = read()
        if len(score) < MIN_NOTES:
            raise ValueError(f"fewer than {MIN_NOTES} notes")
        data = write_score(score)
    except ValueError as error:
        return Piece(**facts | {"error": str(error), "seconds": round(time.process_time() - started, 3)})
    except Exception as error:  # music21 raises anything; the list says what
        return Piece(**facts | {"error": f"music21: {type(error).__name__}", "seconds": round(time.process_time() - started, 3)})
    path = folder / "pieces" / f"{piece.name}.mid"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    facts |= {"openings": openings_of(score), "voices": score.track_names, "num_notes": len(score)}
    label = CHORALE if score.track_names == VOICES and piece.collection == "bach" else piece.label
    return Piece(**facts | {"label": label, "seconds": round(time.process_time() - started, 3)})


def openings_of(score: Score) -> tuple[tuple[int, ...], ...]:
    """Return the first 12 intervals of the highest notes of each part, by track."""
    track = score.column(Column.TRACK)
    return tuple(tuple(opening_of(score.notes[track == number][:, :4])) for number in track.unique().tolist())


def _of_abc(folder: Path, name: str, label: str, abc: str, messages: Any) -> Piece:
    piece = Piece(name, name, LABELS.get(label, None if label == UNLABELLED else label))
    return _timed(folder, piece, lambda: tune_score(read_abc(abc, messages)))


def tune_score(tune: Tune) -> Score:
    """Return a tune as a score, whose first full bar begins on a bar line."""
    shift = tune.bar - tune.pickup if 0 < tune.pickup < tune.bar else 0
    others = np.tile([PROGRAMS[0], 0], (len(tune.notes), 1))
    notes = torch.from_numpy(np.concatenate([tune.notes, others], axis=1))
    return Score(sort_notes(_later(notes, shift)), metres=_metres(tune.metres.tolist(), shift), track_names=("melody",))


def _later(notes: torch.Tensor, shift: int) -> torch.Tensor:
    notes[:, Column.START] += shift
    return notes


def _metres(changes: list[tuple[int, int, int]], shift: int) -> torch.Tensor:
    """Return ``(m, 3)`` with the first metre at tick 0, and the later ones moved with the notes."""
    found = {tick + shift if tick else 0: metre for tick, *metre in sorted(changes)}
    return torch.tensor([(tick, *metre) for tick, metre in found.items()], dtype=torch.int64).reshape(-1, 3)


def _paths(collection: str) -> list[tuple[str, Path]]:
    """Return names and files of a collection, each piece once, in the order of names."""
    found: dict[str, Path] = {}
    for path in (corpus() / collection).rglob("*"):
        name = str(path.relative_to(corpus()).with_name(path.name.removesuffix(path.suffix)))
        if path.suffix in KINDS and not name.endswith("_old"):
            found[name] = min(path, found.get(name, path), key=lambda path: KINDS.index(path.suffix))
    return [(re.sub(r"[^\w./-]+", "_", name), path) for name, path in sorted(found.items())]


def _of_file(folder: Path, name: str, path: Path) -> Piece:
    return _timed(folder, Piece(name, _work(name, path)), lambda: _parsed(path))


def _work(name: str, path: Path) -> str:
    """Return what a file is a part of: a mass, or the folder of its movements."""
    if path.suffix == ".krn":
        mass = re.search(r"(?m)^!!!OPR:\s*(.*)$", path.read_text(encoding="latin-1"))
        return f"{name.partition('/')[0]}/{mass[1].strip()}" if mass else name
    return name.rpartition("/")[0] if name.count("/") > 1 else name


def _parsed(path: Path) -> Score:
    from music21 import converter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about bars that are too full
        return score_of(converter.parse(path, forceSource=True))


def score_of(parsed: Any) -> Score:
    """Return a music21 score: a track for each part, ties joined, the first full bar on a bar line.

    Programs say how high a part is among the others; see ``PROGRAMS``. Ornaments without a length of their own are left out.

    Raises:
        ValueError: there are no notes or no parts.
    """
    if any(part.getInstrument(returnDefault=True).transposition for part in parsed.parts):
        parsed = parsed.toSoundingPitch()
    parts = [(part, rows) for part in parsed.parts if (rows := joined_notes(part))]
    if not parts:
        raise ValueError("no parts with notes")
    tables = []
    for track, (_, rows) in enumerate(parts):
        program = PROGRAMS[round(track * (len(PROGRAMS) - 1) / max(len(parts) - 1, 1))]
        tables.append([(_ticks(start), pitch, max(1, _ticks(end) - _ticks(start)), VELOCITY, program, track) for start, pitch, end in rows])
    first = parts[0][0]
    bars = first.getElementsByClass("Measure")
    pickup, full = (_ticks(x) for x in (bars[0].duration.quarterLength, bars[0].barDuration.quarterLength)) if bars else (0, 0)
    shift = full - pickup if 0 < pickup < full else 0
    notes = sort_notes(_later(torch.tensor(np.concatenate(tables)), shift))
    signatures = [(_ticks(x.getOffsetInHierarchy(first)), x) for x in first.recurse().getElementsByClass("TimeSignature")]
    changes = [(tick, x.numerator, x.denominator) for tick, x in signatures]
    return Score(notes, metres=_metres(changes, shift), track_names=tuple((part.partName or "").lower() for part, _ in parts))


def joined_notes(part: Any) -> list[tuple[Fraction, int, Fraction]]:
    """Return start, pitch and end, in beats, of the notes of a music21 part; tied notes are one."""
    rows: list[tuple[Fraction, int, Fraction]] = []
    tied: dict[int, int] = {}  # pitch -> number of the note that goes on
    for element in part.flatten().notes:
        for note in getattr(element, "notes", (element,)):
            if element.quarterLength <= 0 or not hasattr(note, "pitch"):
                continue
            kind = getattr(note.tie or element.tie, "type", None)
            start, pitch = Fraction(element.offset), note.pitch.midi
            end = start + Fraction(element.quarterLength)
            number = tied.pop(pitch, None) if kind in ("stop", "continue") else None
            if number is not None and rows[number][2] == start:
                rows[number] = (rows[number][0], pitch, end)
            else:
                number = len(rows)
                rows.append((start, pitch, end))
            if kind in ("start", "continue"):
                tied[pitch] = number
    return rows


def _ticks(beats: Any) -> int:
    return round(Fraction(beats) * TICKS_PER_BEAT)
