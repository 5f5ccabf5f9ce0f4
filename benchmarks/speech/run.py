"""Transcribe telephone prompts after training on a quarter of an hour of them, from scratch and from a pretrained encoder.

``python -m benchmarks.speech.run FOLDER`` after ``python -m benchmarks.speech.data FOLDER``; with ``--model DIR`` (from ``multimodal export
RUN --format multimodal --to DIR``) also from that model, and from scratch with a model built like it. Results are lines of
``FOLDER/results.jsonl``; what is there is not run again, so that it can be stopped and go on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.speech.prompts import ALPHABETS
from benchmarks.speech.train import BEAM_SIZE, Setting, train_and_score


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not done yet, then print the table of all results."""
    options = _parser().parse_args(arguments)
    if len({ALPHABETS[language] for language in options.languages}) > 1:
        raise SystemExit(f"error: {', '.join(options.languages)} have different alphabets: run them one after the other.")
    if not (options.folder / "shards").is_dir():
        raise SystemExit(f"error: no shards in {options.folder}: run python -m benchmarks.speech.data {options.folder} first.")
    results = options.folder / "results.jsonl"
    for seed in range(options.seeds):
        setting = Setting(options.epochs, options.batch_size, options.lr, options.layer_decay, options.bins, seed)
        for how in ("scratch", "pretrained") if options.model else ("scratch",):
            wanted = {"how": how, "model": options.model, "languages": options.languages, **setting._asdict()}
            if not any(wanted.items() <= {name: line.get(name) for name in wanted}.items() for line in read(results)):
                line = train_and_score(options.folder, options.languages, how, options.model, setting)
                with results.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    print_table(read(results))


def _parser() -> argparse.ArgumentParser:
    own = Setting()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of benchmarks.speech.data")
    parser.add_argument("--model", help="folder of a pretrained model")
    parser.add_argument("--languages", nargs="+", choices=list(ALPHABETS), default=["en"], help="whose prompts; several of one alphabet")
    parser.add_argument("--epochs", type=int, default=own.epochs)
    parser.add_argument("--batch-size", type=int, default=own.batch_size, help="prompts of a step")
    parser.add_argument("--lr", type=float, default=own.lr)
    parser.add_argument("--layer-decay", type=float, default=own.layer_decay, help="for the pretrained model")
    parser.add_argument("--bins", type=int, default=own.bins, help="of a spectrogram, as the model was pretrained with")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each kind")
    return parser


def read(results: Path) -> list[dict[str, Any]]:
    """Return what is done."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []


def print_table(lines: Sequence[dict[str, Any]]) -> None:
    """Print error rates of the test split, a row for each run."""
    rates = [f"{rate}, {how}" for how in ("greedy", f"beam {BEAM_SIZE}") for rate in ("CER", "WER")]
    table = Table("languages", "from", "model", "epochs", "seed", *rates, "s")
    for line in lines:
        said = [f"{line[how][f'{unit}_error_rate']:.3f}" for how in ("greedy", "beam") for unit in ("character", "word")]
        table.add_row(
            " ".join(line["languages"]),
            line["how"],
            line["model"] or "",
            str(line["epochs"]),
            str(line["seed"]),
            *said,
            str(line["seconds"]),
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
