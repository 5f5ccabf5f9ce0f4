"""Pretrain on 4,000 digits by several objectives for about the same processor time, and fine-tune on 10 to 400 labels of each digit.

``python -m benchmarks.digit_pretraining.run [METHOD ...]``; data and runs come to data/digit_pretraining and runs/digits. What is finished
is not done again: results are lines of runs/digits/results.jsonl, so the comparison can be stopped and go on, or be shared by processes.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.digit_pretraining.data import make_shards
from benchmarks.digit_pretraining.fine_tune import SETTINGS, accuracy

DATA, RUNS = Path("data/digit_pretraining"), Path("runs/digits")
RESULTS = RUNS / "results.jsonl"
SCRATCH = "from scratch"
TOKENIZERS = {"beit": "dvae", "beitv2": "vqkd"}
"""Method -> the recipe and the run of its tokenizer."""
METHODS = ("mae", "beit", "latent", "beitv2")
"""Those compared, the teacher of the last one's tokenizer first."""
SEEDS = range(5)
BASELINE = {10: 0.874, 20: 0.907, 100: 0.955, 400: 0.970}
"""Labels of each digit -> mean accuracy of a support vector machine on histograms of oriented gradients, over 5 draws of the labels."""


def main(methods: Sequence[str] = METHODS) -> None:
    """Run what is not done yet, then print the table of all results."""
    make_shards(DATA)
    for method in methods:
        if method != SCRATCH:
            pretrain(method)
    for labels in SETTINGS:
        for method in methods:
            for seed in SEEDS:
                fine_tune(method, labels, seed)
    print_table(results())


def pretrain(method: str) -> None:
    """Train the tokenizer of a method, if it has one, and an encoder; save the encoder as ``runs/digits/<method>_model``."""
    model = _model(method)
    if model.is_dir():
        return
    tokenizer = TOKENIZERS.get(method)
    if tokenizer is not None and not (RUNS / tokenizer / "tokenizer").is_dir():
        if method == "beitv2":
            pretrain("mae")  # its encoder is the teacher
        _timed(f"{method} tokenizer", ["fit", "--config", f"configs/tokenizer/{tokenizer}_digits.yaml", "--run", str(RUNS / tokenizer)])
    _timed(method, ["fit", "--config", f"configs/pretrain/{method}_digits.yaml", "--run", str(RUNS / method)])
    _multimodal(["export", str(RUNS / method), "--format", "multimodal", "--to", str(model)])


def fine_tune(method: str, labels: int, seed: int) -> None:
    """Fine-tune once, and write the result."""
    if any((x["method"], x.get("labels"), x.get("seed")) == (method, labels, seed) for x in results()):
        return
    score, seconds = accuracy(None if method == SCRATCH else _model(method), DATA, labels, seed)
    _write({"method": method, "labels": labels, "seed": seed, "accuracy": score, "seconds": round(seconds)})


def results() -> list[dict]:
    """Return what is done."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def print_table(found: Sequence[dict]) -> None:
    """Print mean and standard deviation over the draws of the labels."""
    scores: dict[tuple[str, int], list[float]] = defaultdict(list)
    for line in found:
        if "accuracy" in line:
            scores[line["method"], line["labels"]].append(line["accuracy"])
    seconds = {line["method"]: line["processor_seconds"] for line in found if "processor_seconds" in line}
    table = Table("method", "pretraining, processor s", *(f"{labels} labels per digit" for labels in SETTINGS))
    for method in dict.fromkeys(method for method, _ in scores):
        cells = [_cell(scores[method, labels]) for labels in SETTINGS]
        table.add_row(method, str(seconds.get(method, "")), *cells)
    table.add_row("HOG and SVM", "", *(f"{BASELINE[labels]:.3f}" for labels in SETTINGS))
    Console().print(table)


def _cell(scores: Sequence[float]) -> str:
    if not scores:
        return ""
    spread = f" ± {statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.3f}{spread} ({len(scores)})"


def _model(method: str) -> Path:
    return RUNS / f"{method}_model"


def _timed(what: str, arguments: Sequence[str]) -> None:
    before = _processor_seconds()
    _multimodal(arguments)
    _write({"method": what, "processor_seconds": round(_processor_seconds() - before)})


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _multimodal(arguments: Sequence[str]) -> None:
    print("$ multimodal", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "multimodal", *arguments], check=True)


def _write(line: dict) -> None:
    RUNS.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or (*METHODS, SCRATCH))
