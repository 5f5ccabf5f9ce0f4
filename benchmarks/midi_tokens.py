"""MIDI files to ids, side by side with MidiBERT's own code, or a computation like it, and with miditok.

``python -m benchmarks.midi_tokens [--data FOLDER] [--files 1000] [--min-notes 1] [--rounds 3] [--midibert CHECKOUT | --alone]``

Everybody starts at the path of a file and ends with its ids, one file after the other. MidiBERT's code is that of a checkout of
https://github.com/wazenmai/MIDI-BERT (branch CP), which is run if its folder is given; both ways need ``pip install miditoolkit``.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.demo.tunes import write_tunes
from benchmarks.side_by_side import Candidate, machine, measure, table
from multimodal.tokenizers.midi import Column, CompoundTokenizer, GridTokenizer, OctupleTokenizer, RemiTokenizer, read_score

PUBLISHED, STAND_IN = "MidiBERT's prepare_data", "as MidiBERT's prepare_data, on miditoolkit"
Ids = Callable[[Path], np.ndarray]


@dataclass
class Item:
    """A note, as MidiBERT's code holds it: an object."""

    start: int
    end: int
    pitch: int


def main() -> int:
    """Print the tables, and how many ids are those of the published algorithm."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.midi_tokens", description="MIDI files to ids, side by side.")
    parser.add_argument("--data", type=Path, help="a folder of MIDI files; left out: tunes and chorales of music21, in data/tunes")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--min-notes", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--midibert", type=Path, help="a checkout of MidiBERT, whose code is run")
    parser.add_argument("--alone", action="store_true", help="without the others, which are slow where files are many")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=140)
    files = chosen(arguments.data or tunes(), arguments.files, arguments.min_notes)
    notes = [len(read_score(path.read_bytes(), drop_drums=False)) for path in files]
    console.print(f"{len(files)} files, {sum(notes)} notes: {np.median(notes):.0f} in the median, {min(notes)} to {max(notes)}")
    published, others = ({}, {}) if arguments.alone else (theirs(arguments.midibert), miditok())
    candidates = {name: over(files, call) for name, call in (ours() | published | others).items()}
    speeds = {own.name: own for own in measure(candidates, arguments.rounds)}
    for name, peers in (("compound words", [*published, "miditok CPWord"]), ("REMI", ["miditok REMI"]), ("octuples", ["miditok Octuple"])):
        console.print(table([speeds[own] for own in (name, *peers) if own in speeds], "files"))
    for name, call in published.items():
        console.print(f"{name}: {agreement(files, call)}")
    console.print(machine(("symusic", "numpy", "torch", "miditoolkit", "miditok")))
    return 0


def tunes() -> Path:
    """Return the folder of the demo's tunes and chorales, which are written if they are not there."""
    write_tunes("data/tunes")
    return Path("data/tunes")


def chosen(folder: Path, count: int, min_notes: int) -> list[Path]:
    """Return so many files of a folder at random, the same each time, of those that can be read and have so many notes.

    Raises:
        ValueError: there are none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".mid", ".midi"))
    random.Random(0).shuffle(paths)
    found: list[Path] = []
    for path in paths:
        if len(found) == count:
            break
        try:
            pitch = read_score(path.read_bytes(), drop_drums=False).column(Column.PITCH)
        except ValueError:
            continue
        if len(pitch) >= min_notes and int(pitch.min()) >= 22 and int(pitch.max()) <= 107:  # others have no id there
            found.append(path)
    if not found:
        raise ValueError(f"no MIDI file of at least {min_notes} notes in {folder}.")
    return found


def over(files: Sequence[Path], call: Ids) -> Candidate:
    """Return a candidate that turns all files into ids."""

    def work() -> int:
        return sum(len(call(path)) > 0 for path in files)

    return work


def ours() -> dict[str, Ids]:
    """Return name -> our way from a path to ids."""

    def way(tokenizer: GridTokenizer) -> Ids:
        return lambda path: tokenizer.encode_score(read_score(path.read_bytes(), drop_drums=False)).numpy()

    return {"compound words": way(CompoundTokenizer()), "REMI": way(RemiTokenizer()), "octuples": way(OctupleTokenizer())}


def miditok() -> dict[str, Ids]:
    """Return name -> miditok's way, with its default settings but for the bars of a piece."""
    own = importlib.import_module("miditok")

    def way(tokenizer: Any) -> Ids:
        def call(path: Path) -> np.ndarray:
            found = tokenizer(path)
            return np.array([row for one in (found if isinstance(found, list) else [found]) for row in one.ids])

        return call

    many_bars = own.TokenizerConfig(max_bar_embedding=2000)  # by default it leaves out what is after the 60th
    return {"miditok CPWord": way(own.CPWord()), "miditok REMI": way(own.REMI()), "miditok Octuple": way(own.Octuple(many_bars))}


def theirs(checkout: Path | None) -> dict[str, Ids]:
    """Return name -> MidiBERT's way, its own code where there is a checkout; nothing where miditoolkit is not installed."""
    try:
        miditoolkit = importlib.import_module("miditoolkit")
    except ImportError:
        print("miditoolkit is not installed: MidiBERT's way is left out")
        return {}

    def stand_in(path: Path) -> np.ndarray:
        instruments = miditoolkit.MidiFile(str(path)).instruments
        tracks = [sorted(instrument.notes, key=lambda note: (note.start, note.pitch)) for instrument in instruments]
        return published_words([Item(note.start, note.end, note.pitch) for track in tracks for note in track])

    return {STAND_IN: stand_in} if checkout is None else {PUBLISHED: of_checkout(checkout), STAND_IN: stand_in}


def of_checkout(folder: Path) -> Ids:
    """Return the way of MidiBERT's own code; ``prepare_data`` of its model is this for each file, and then cuts and pads."""
    sys.path.append(str(folder))
    model = importlib.import_module("data_creation.prepare_data.model").CP(str(folder / "data_creation/prepare_data/dict/CP.pkl"))

    def call(path: Path) -> np.ndarray:
        events = model.extract_events(str(path), "custom")
        return np.array([[model.event2word[event.name][f"{event.name} {event.value}"] for event in note] for note in events])

    return call


def published_words(notes: list[Item]) -> np.ndarray:
    """Return MidiBERT's compound words of notes, note by note; written from the description of its algorithm.

    All starts go to the nearest point of a grid that ends before the last. Bar by bar, the notes that start in it are looked up among
    all, and of each the nearest of 16 places and of 64 durations.
    """
    notes = sorted(notes, key=lambda note: note.start)
    grid, durations = np.arange(0, notes[-1].start, 120), np.arange(60, 3841, 60)
    for note in notes:
        shift = int(grid[np.argmin(abs(grid - note.start))]) - note.start
        note.start, note.end = note.start + shift, note.end + shift
    words = []
    for bar in range(0, notes[-1].end, 1920):
        places = np.linspace(bar, bar + 1920, 16, endpoint=False)
        inside = [note for note in notes if bar <= note.start < bar + 1920]
        for number, note in enumerate(inside):
            position = np.argmin(abs(places - note.start))
            duration = np.argmin(abs(durations - (note.end - note.start)))
            words.append((int(number > 0), position, note.pitch - 22, duration))
    return np.array(words)


def agreement(files: Sequence[Path], call: Ids) -> str:
    """Return how many notes have the same ids as ours, and whether the others are those that the published grid moves to its end."""
    same = total = moved = files_explained = 0
    for path in files:
        score = read_score(path.read_bytes(), drop_drums=False)
        own, other = CompoundTokenizer().encode_score(score).numpy(), call(path)
        end = (int(score.notes[-1, Column.START]) - 1) // 120 * 120
        total, same = total + len(own), same + int((own == other).all(1).sum())
        moved += int((score.column(Column.START) > end + 60).sum())
        clamped = score.notes.clone()
        clamped[:, Column.START].clamp_(max=end)
        files_explained += bool((CompoundTokenizer().encode_score(replace(score, notes=clamped)).numpy() == other).all())
    return (
        f"{same} of {total} notes have the same ids; {moved} lie after the end of its grid, and with these moved there, all ids of "
        f"{files_explained} of {len(files)} files are the same"
    )


if __name__ == "__main__":
    raise SystemExit(main())
