"""Hidden voices and hidden bars of Bach's chorales, filled in by a masked model, in one round or in several.

``python -m benchmarks.infilling.run [--seeds 3]``: reads the shards of chorales of ``benchmarks.music.data``, pretrains (about a quarter of
an hour of a CPU, once), fills in the test chorales, and prints the table. Scores come to ``runs/infilling/scores.json``.

Of the test chorales it hides, and fills in by what is left: the pitch of all notes of one voice, for each of the four; the pitch of all
notes of bars 3 to 6, counted from 0; and position, pitch and duration of all notes of these bars. The key is that of the true piece
(``keys.key_of``), the range of a voice that of 98% of its notes in the training chorales.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.infilling.keys import key_of
from benchmarks.infilling.scores import Counts, Voices, count, mean_and_spread
from multimodal.batch import Item, Items, Sample, collate
from multimodal.filling import Filled, Filling, IterativeDecoding
from multimodal.lightning_cli import load_run
from multimodal.masking import ChosenGroupMasking, FieldMasking
from multimodal.modality import Modality
from multimodal.protocols import Masking, Tokens
from multimodal.tokenizers.midi import Column, MidiTokenizer, MidiTransform, Score, read_score

DATA, RUN, RECIPE = Path("data/music"), Path("runs/infilling"), Path("benchmarks/infilling/pretrain.yaml")
CHORALES = "chorales"
VOICES = ("soprano", "alto", "tenor", "bass")
BARS = (3, 6)
WINDOW = 192
BATCH = 16
TASKS: dict[str, Masking] = {
    **{voice: FieldMasking(ChosenGroupMasking("track", [number]), ["pitch"]) for number, voice in enumerate(VOICES)},
    "bars, pitch": FieldMasking(ChosenGroupMasking("bar", first=BARS[0], last=BARS[1]), ["pitch"]),
    "bars, all": FieldMasking(ChosenGroupMasking("bar", first=BARS[0], last=BARS[1]), ["position", "pitch", "duration"]),
}
WAYS = {
    "1 round, likeliest": IterativeDecoding(1, temperature=0),
    "1 round, drawn": IterativeDecoding(1),
    "8 rounds, drawn": IterativeDecoding(8),
    "16 rounds, drawn with top_p 0.9": IterativeDecoding(16, top_p=0.9),
    "8 rounds and 8 of Gibbs, top_p 0.9": IterativeDecoding(8, top_p=0.9, refine_steps=8),
}
RANDOM, RANDOM_IN_RANGE, COMMONEST, REAL = (
    "any pitch at random",
    "random, in the voice's range",
    "its most frequent pitch",
    "the real piece",
)


class Piece(NamedTuple):
    """A chorale.

    Args:
        key: its name.
        score: its notes, a track for each voice.
    """

    key: str
    score: Score


def main() -> None:
    """Pretrain if need be, score what is not scored yet, and print the table."""
    parser = argparse.ArgumentParser(description="Fill in hidden voices and bars of chorales.")
    parser.add_argument("--seeds", type=int, default=3, help="how often everything random is done (default: %(default)s)")
    options = parser.parse_args()
    if not (DATA / CHORALES / "index.json").is_file():
        raise SystemExit(f"{DATA / CHORALES} is not there: write it with `python -m benchmarks.music.data`.")
    if not (RUN / "checkpoints/last.ckpt").is_file():
        subprocess.run([sys.executable, "-m", "multimodal", "fit", "--config", str(RECIPE), "--run", str(RUN)], check=True)
    path = RUN / "scores.json"
    if not path.is_file():
        path.write_text(json.dumps(list(score(options.seeds)), indent=1) + "\n")
    print_table(json.loads(path.read_text()))


def pieces_of(split: str) -> list[Piece]:
    """Return the chorales of a split, those of which all four voices are there."""
    with (DATA / f"{CHORALES}.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    return [Piece(row["key"], read_score((DATA / row["path"]).read_bytes())) for row in rows]


def score(seeds: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each task, method and seed."""
    voices = Voices.of(piece.score.notes.numpy() for piece in pieces_of("train"))
    model, _ = load_run(RUN)
    modality = cast(Modality, model.modalities["midi"])
    tokenizer = cast(MidiTransform, modality.transform).tokenizer
    pieces = pieces_of("test")
    print(
        f"{len(pieces)} test chorales, {sum(len(piece.score) for piece in pieces):,} notes; ranges of the voices {_said(voices)}",
        flush=True,
    )
    for task, masking in TASKS.items():
        for seed in range(seeds):
            for name, counts in without_model(pieces, tokenizer, masking, voices, seed).items():
                if seed == 0 or name in (RANDOM, RANDOM_IN_RANGE):
                    yield _row(task, name, seed, counts)
        for name, how in WAYS.items():
            for seed in range(seeds if how.temperature else 1):
                filled = fill(model, tokenizer, pieces, Filling(masking, how, window=WINDOW), seed)
                total = sum((_count(piece, tokenizer, *own, voices) for piece, own in zip(pieces, filled, strict=True)), Counts())
                yield _row(task, name, seed, total)
            print(task, name, {key: round(value, 3) for key, value in total.shares.items()}, flush=True)


def fill(model: Any, tokenizer: MidiTokenizer, pieces: list[Piece], filling: Filling, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield, of each piece, the true ids, those with what was hidden filled in, and which were hidden, each ``(n, k)``."""
    modality = model.modalities["midi"]
    filling.check("midi", modality)
    for first in range(0, len(pieces), BATCH):
        items = items_of([tokenizer.encode_score(tokenizer.restrict(piece.score)) for piece in pieces[first : first + BATCH]], first, seed)
        with torch.autocast("cpu", torch.bfloat16):  # as it was trained
            found: Filled = filling.fill(modality, items, lambda part, wanted: model.encode({"midi": part}, wanted=wanted).tokens)
        lengths = found.lengths.tolist()
        yield from zip(found.truth.split(lengths), found.ids.split(lengths), found.hidden.split(lengths), strict=True)


def items_of(ids: list[Tensor], first: int, seed: int) -> Items:
    """Return pieces as the items of a batch.

    Args:
        ids: of each piece, ``(n, k)``.
        first: number of the first, which its seed depends on.
        seed: of the run.
    """
    samples = [Sample(str(i), {"midi": Item(own, ragged=True)}, seed=seed * 1_000_003 + first + i) for i, own in enumerate(ids)]
    return collate(samples).items["midi"]


def without_model(pieces: list[Piece], tokenizer: MidiTokenizer, masking: Masking, voices: Voices, seed: int) -> Mapping[str, Counts]:
    """Return name -> scores of the real pieces and of what takes no model. They keep places and lengths of notes."""
    random = np.random.default_rng(seed)
    low, high = tokenizer.pitch_range
    ways: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        RANDOM: lambda pitch, voice: random.integers(low, high + 1, len(pitch)),
        RANDOM_IN_RANGE: lambda pitch, voice: random.integers(voices.low[voice], voices.high[voice] + 1),
        COMMONEST: lambda pitch, voice: voices.commonest[voice],
        REAL: lambda pitch, voice: pitch,
    }
    totals = dict.fromkeys(ways, Counts())
    for number, piece in enumerate(pieces):
        ids = tokenizer.encode_score(tokenizer.restrict(piece.score))
        items = items_of([ids], number, seed)
        tokens = tokenizer.annotated(Tokens.of_sequences(items.values, items.lengths), ids)
        hidden = masking(tokens, items.seed).any(1).numpy()
        notes = tokenizer.guesses(ids, ids)[0].numpy()
        key = key_of(notes[:, Column.PITCH], notes[:, Column.DURATION])
        for name, way in ways.items():
            guess = notes.copy()
            guess[hidden, Column.PITCH] = way(notes[hidden, Column.PITCH], notes[hidden, Column.TRACK])
            totals[name] += count(notes, guess, hidden, key, voices)
    return totals


def _count(piece: Piece, tokenizer: MidiTokenizer, truth: Tensor, ids: Tensor, hidden: Tensor, voices: Voices) -> Counts:
    true, guess, valid = (x.numpy() for x in tokenizer.guesses(truth, ids))
    assert valid.all(), "ids that say nothing are never filled in"
    return count(true, guess, hidden.any(1).numpy(), key_of(true[:, Column.PITCH], true[:, Column.DURATION]), voices)


def _row(task: str, name: str, seed: int, counts: Counts) -> dict[str, Any]:
    return {"task": task, "method": name, "seed": seed, "notes": counts.notes, **counts.shares}


def _said(voices: Voices) -> str:
    return ", ".join(f"{voice} {low} to {high}" for voice, low, high in zip(VOICES, voices.low, voices.high, strict=True))


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the mean over seeds of each score, with its standard deviation where there are several."""
    table = Table("hidden", "filled in by", "true pitch", "in the key", "in the range", "consonant")
    for task in TASKS:
        own = [row for row in rows if row["task"] == task]
        for name in dict.fromkeys(row["method"] for row in own):
            cells = [[row[score] for row in own if row["method"] == name] for score in ("right", "in_key", "in_range", "consonant")]
            shown = [
                f"{mean:.3f}" + (f" ± {spread:.3f}" if len(cell) > 1 else "") for cell in cells for mean, spread in [mean_and_spread(cell)]
            ]
            table.add_row(task, name, *(["" if task == "bars, all" and name != REAL else shown[0], *shown[1:]]))
        table.add_section()
    Console(width=140).print(table)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
