"""Tell drums of kits that were left out, before and after rounds of BEATs on sounds without labels.

``python -m benchmarks.drums.run [--rounds 3] [--seeds 1] [METHOD ...]``; data and runs come to data/sounds and runs/drums. What is finished
is not done again: results are lines of runs/drums/results.jsonl, so the comparison can be stopped and go on, or be shared by processes.
Pretraining hears the left-out kits too, without labels.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.metrics import f1_score

from benchmarks.drums import data
from benchmarks.drums.sounds import load, spectrum_features
from benchmarks.sound_classification.methods import fine_tuned, frozen_features, machine
from benchmarks.sound_classification.sounds import Sounds

RUNS = Path("runs/drums")
RESULTS, ROUNDS = RUNS / "results.jsonl", RUNS / "rounds"
SCRATCH, SPECTRUM, FROZEN = "from scratch", "spectrum, SVM", "frozen, SVM"
DRAWS = 2000
"""Of the recordings, for the spread of a score."""


def main() -> None:
    """Run what is not done yet, then print the table of all results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", help="such as 'from scratch', 'round 1', 'round 1 frozen, SVM' (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="of pretraining (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="of fine-tuning (default: %(default)s)")
    options = parser.parse_args()
    data.main()
    names = [f"round {number}" for number in range(1, options.rounds + 1)]
    methods = options.methods or [SPECTRUM, *(f"{name} {FROZEN}" for name in names), SCRATCH, *names]
    if any(method.startswith("round") for method in methods):
        iterate = ["tokenizers", "iterate", "--config", "configs/iterate/beats_sounds.yaml", "--rounds", str(options.rounds)]
        subprocess.run([sys.executable, "-m", "multimodal", *iterate, "--run", str(ROUNDS)], check=True)
    sounds = load(data.ROOT / "packages" / "unpacked")
    for seed in range(options.seeds):
        for method in methods:
            evaluate(method, sounds, seed)
    print_table(sounds, results())


def evaluate(method: str, sounds: Sounds, seed: int) -> None:
    """Leave out one kit after the other, as far as it is not done yet."""
    done = {(x["method"], x["kit"], x["seed"]) for x in results()}
    kits = [kit for kit in np.unique(sounds.groups) if (method, kit, seed) not in done]
    if not kits or (seed and method.endswith("SVM")):  # which draws nothing
        return
    number = method.split()[1]
    model = ROUNDS / f"round_{number}" / "model" if method.startswith("round") else None
    features = frozen_features(model, sounds) if model and method.endswith(FROZEN) else spectrum_features(sounds)
    for kit in kits:
        train, test = np.flatnonzero(sounds.groups != kit), np.flatnonzero(sounds.groups == kit)
        by_machine = method.endswith("SVM")
        told = machine(features, sounds.labels, train, test) if by_machine else fine_tuned(model, sounds, train, test, seed)
        _write({"method": method, "kit": str(kit), "seed": seed, "told": told.tolist()}, (told == sounds.labels[test]).mean())


def results() -> list[dict]:
    """Return what is done."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def print_table(sounds: Sounds, found: Sequence[dict]) -> None:
    """Print accuracy and macro F1 over all recordings, each told by a model that has not seen its kit; mean over the seeds."""
    told: dict[str, dict[int, np.ndarray]] = defaultdict(dict)
    for line in found:
        own = told[line["method"]].setdefault(line["seed"], np.full(len(sounds.labels), -1))
        own[np.flatnonzero(sounds.groups == line["kit"])] = line["told"]
    table = Table("method", "seeds", "accuracy", "macro F1", "better than the SVM of the spectrum by")
    table.add_row(
        "most frequent class", "", *_scores(sounds.labels, [np.full_like(sounds.labels, np.bincount(sounds.labels).argmax())]), ""
    )
    base = told.get(SPECTRUM, {}).get(0)
    for method, guesses in told.items():
        whole = [guess for guess in guesses.values() if (guess >= 0).all()]
        if whole:
            better = "" if base is None or method == SPECTRUM else _better(sounds, whole, base)
            table.add_row(method, str(len(whole)), *_scores(sounds.labels, whole), better)
    Console(width=140).print(table)


def _scores(labels: np.ndarray, guesses: Sequence[np.ndarray]) -> tuple[str, str]:
    accuracy = np.mean([(guess == labels).mean() for guess in guesses])
    return f"{accuracy:.3f}", f"{np.mean([f1_score(labels, guess, average='macro') for guess in guesses]):.3f}"


def _better(sounds: Sounds, guesses: Sequence[np.ndarray], base: np.ndarray) -> str:
    """Return the difference in accuracy with its standard error, over draws of kits: recordings of one kit are alike."""
    gain = np.mean([guess == sounds.labels for guess in guesses], 0) - (base == sounds.labels)
    kits = [gain[sounds.groups == kit] for kit in np.unique(sounds.groups)]
    random = np.random.default_rng(0)
    draws = [np.concatenate([kits[i] for i in random.integers(len(kits), size=len(kits))]).mean() for _ in range(DRAWS)]
    return f"{gain.mean():+.3f} ± {np.std(draws):.3f}"


def _write(line: dict, accuracy: float) -> None:
    RUNS.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"{line['method']}, without {line['kit']}, seed {line['seed']}: {accuracy:.3f}", flush=True)


if __name__ == "__main__":
    main()
