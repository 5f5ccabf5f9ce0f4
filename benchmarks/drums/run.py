"""Tell drums of kits that were left out, before and after pretraining on sounds without labels: rounds of BEATs, AudioMAE, and contrast.

``python -m benchmarks.drums.run [--rounds 3] [--seeds 1] [--kits 3] [METHOD ...]``; data and runs come to data/sounds and runs/drums. What
is finished is not done again: results are lines of runs/drums/results.jsonl, so the comparison can be stopped and go on, or be shared by
processes. Pretraining hears the left-out kits too, without labels.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.metrics import f1_score

from benchmarks.drums import data
from benchmarks.drums.sounds import load, spectrum_features
from benchmarks.sound_classification.methods import LAYER_DECAY, fine_tuned, frozen_features, machine
from benchmarks.sound_classification.sounds import Sounds
from multimodal.tokenizers.audio import FilterAugment, RandomLinearFader, RandomStretch

RUNS = Path("runs/drums")
RESULTS, RESULTS_SHARED, ROUNDS = RUNS / "results.jsonl", RUNS / "results_shared.jsonl", RUNS / "rounds"
SCRATCH, SPECTRUM, FROZEN = "from scratch", "spectrum, SVM", "frozen, SVM"
UNTRAINED, LAYERS, AUGMENTED = f"untrained {FROZEN}", "layer decay", ", augmented"
RECIPES = {"values": Path("configs/pretrain/audiomae_sounds.yaml"), "contrast": Path("configs/pretrain/contrast_sounds.yaml")}
"""What is learned of sounds without labels beside rounds of BEATs: the values of hidden patches, and which views are of one sound."""
DRAWS = 2000
"""Of the recordings, for the spread of a score."""


class Method(NamedTuple):
    """One way to tell the drums.

    Args:
        model: folder of the pretrained model that is used, or that another is built like; None: none.
        machine: a support vector machine tells them, from the frozen model or without one from the spectrum; else a model is trained.
        untrained: with new weights.
    """

    model: Path | None = None
    machine: bool = False
    untrained: bool = False

    @property
    def is_fine_tuned(self) -> bool:
        """Whether a pretrained encoder is trained on, by a rate for each layer."""
        return self.model is not None and not self.machine and not self.untrained


def methods_of(rounds: int) -> dict[str, Method]:
    """Return all methods by name, where there are so many rounds."""
    models = {f"round {number}": Method(ROUNDS / f"round_{number}" / "model") for number in range(1, rounds + 1)}
    models |= {name: Method(_model(name)) for name in RECIPES}
    return {
        SPECTRUM: Method(machine=True),
        UNTRAINED: Method(ROUNDS / "round_1" / "model", machine=True, untrained=True),
        **{f"{name} {FROZEN}": method._replace(machine=True) for name, method in models.items()},
        SCRATCH: Method(untrained=True),
        **models,
    }


def main() -> None:
    """Run what is not done yet, then print the table of all results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", help="such as 'from scratch', 'round 1', 'round 1 frozen, SVM' (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="of pretraining (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="of fine-tuning (default: %(default)s)")
    parser.add_argument("--kits", type=int, help="that are learned from, drawn for each that is left out (default: all others)")
    parser.add_argument("--layer-decay", type=float, default=LAYER_DECAY, help="of pretrained encoders (default: %(default)s)")
    parser.add_argument("--augment", action="store_true", help="fine-tune on sounds that are stretched, coloured and faded")
    parser.add_argument("--shared", action="store_true", help="kits that share recordings are left out one by one, so these are heard")
    options = parser.parse_args()
    known = methods_of(options.rounds)
    if unknown := [name for name in options.methods if name not in known]:
        parser.error(f"unknown method {unknown[0]!r}; known are {', '.join(map(repr, known))}.")
    names = options.methods or list(known)
    data.main()
    pretrain({known[name].model for name in names}, options.rounds)
    sounds, file = load(data.ROOT / "packages" / "unpacked", options.shared), RESULTS_SHARED if options.shared else RESULTS
    for seed in range(options.seeds):
        for name in names:
            evaluate(file, name, known[name], sounds, seed, options.kits, options.layer_decay, options.augment)
    print_table(sounds, results(file), known)


def pretrain(models: set[Path | None], rounds: int) -> None:
    """Make the models that are not there yet."""
    if models - {None, *(_model(name) for name in RECIPES)}:
        _run("tokenizers", "iterate", "--config", "configs/iterate/beats_sounds.yaml", "--rounds", str(rounds), "--run", str(ROUNDS))
    for name, recipe in RECIPES.items():
        if _model(name) in models and not _model(name).is_dir():
            begun = ["--ckpt_path", "last"] if (RUNS / name / "checkpoints" / "last.ckpt").is_file() else []
            _run("fit", "--config", str(recipe), "--run", str(RUNS / name), *begun)
            _run("export", str(RUNS / name), "--format", "multimodal", "--to", str(_model(name)))


def _model(name: str) -> Path:
    return RUNS / f"{name}_model"


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "multimodal", *arguments], check=True)


def evaluate(
    file: Path,
    name: str,
    method: Method,
    sounds: Sounds,
    seed: int,
    learned: int | None = None,
    layer_decay: float = LAYER_DECAY,
    augment: bool = False,
) -> None:
    """Leave out one kit after the other, as far as it is not done yet.

    Args:
        file: of the results.
        name: of the method.
        method: what tells the drums.
        sounds: of all kits.
        seed: of new weights, of batches, and of the kits that are learned from.
        learned: how many kits are learned from; None: all but the one that is left out.
        layer_decay: of an encoder that was pretrained.
        augment: in fine-tuning, sounds are stretched, coloured and faded.
    """
    if method.is_fine_tuned and layer_decay != LAYER_DECAY:
        name = f"{name}, {LAYERS} {layer_decay:g}"
    if augment and not method.machine:
        name += AUGMENTED
    done = {(x["method"], x["kit"], x["seed"], x.get("learned")) for x in results(file)}
    kits = [kit for kit in np.unique(sounds.groups) if (name, kit, seed, learned) not in done]
    if not kits or (seed and learned is None and method.machine and not method.untrained):  # which draws nothing
        return
    features = _features(method, sounds, seed) if method.machine else None
    for kit in kits:
        train, test = np.flatnonzero(np.isin(sounds.groups, _others(sounds, kit, seed, learned))), np.flatnonzero(sounds.groups == kit)
        if features is not None:
            told = machine(features, sounds.labels, train, test)
        else:
            told = fine_tuned(
                method.model,
                sounds,
                train,
                test,
                seed,
                untrained=method.untrained,
                layer_decay=layer_decay,
                augmentation=[RandomStretch(), FilterAugment(), RandomLinearFader()] if augment else [],
            )
        line = {"method": name, "kit": str(kit), "seed": seed, "learned": learned, "told": told.tolist()}
        _write(file, line, (told == sounds.labels[test]).mean())


def _features(method: Method, sounds: Sounds, seed: int) -> np.ndarray:
    if method.model is None:
        return spectrum_features(sounds)
    return frozen_features(method.model, sounds, untrained=seed if method.untrained else None)


def _others(sounds: Sounds, kit: str, seed: int, learned: int | None) -> np.ndarray:
    """Return the kits that are learned from: the same for all methods, and more of them hold those of fewer."""
    names = np.unique(sounds.groups)
    drawn = np.random.default_rng([seed, int(np.flatnonzero(names == kit)[0])]).permutation(names[names != kit])
    return drawn[:learned]


def results(file: Path) -> list[dict]:
    """Return what is done."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def print_table(sounds: Sounds, found: Sequence[dict], known: Mapping[str, Method]) -> None:
    """Print accuracy and macro F1 over all recordings, each told by a model that has not seen its kit; mean over the seeds."""
    told: dict[tuple[str, int | None], dict[int, np.ndarray]] = defaultdict(dict)
    for line in found:
        own = told[line["method"], line.get("learned")].setdefault(line["seed"], np.full(len(sounds.labels), -1))
        own[np.flatnonzero(sounds.groups == line["kit"])] = line["told"]
    table = Table("method", "kits learned from", "seeds", "accuracy", "macro F1", "better than from scratch by")
    frequent = np.full_like(sounds.labels, np.bincount(sounds.labels).argmax())
    table.add_row("most frequent class", "", "", *_scores(sounds.labels, [frequent]), "")
    whole = {name: {seed: x for seed, x in guesses.items() if (x >= 0).all()} for name, guesses in told.items()}
    for (name, learned), guesses in whole.items():
        augmented = AUGMENTED if name.endswith(AUGMENTED) else ""
        method = known.get(name.removesuffix(AUGMENTED).split(f", {LAYERS}")[0], Method())
        base = {} if method.untrained and not method.machine else whole.get((SCRATCH + augmented, learned), {})
        better = _better(sounds, list(guesses.values()), list(base.values())) if guesses and base else ""
        if guesses:
            table.add_row(name, str(learned or "all others"), str(len(guesses)), *_scores(sounds.labels, list(guesses.values())), better)
    Console(width=140).print(table)


def _scores(labels: np.ndarray, guesses: Sequence[np.ndarray]) -> tuple[str, str]:
    accuracy = np.mean([(guess == labels).mean() for guess in guesses])
    return f"{accuracy:.3f}", f"{np.mean([f1_score(labels, guess, average='macro') for guess in guesses]):.3f}"


def _better(sounds: Sounds, guesses: Sequence[np.ndarray], base: Sequence[np.ndarray]) -> str:
    """Return the difference in accuracy with its standard error, over draws of kits: recordings of one kit are alike."""
    gain = np.mean([guess == sounds.labels for guess in guesses], 0) - np.mean([guess == sounds.labels for guess in base], 0)
    kits = [gain[sounds.groups == kit] for kit in np.unique(sounds.groups)]
    random = np.random.default_rng(0)
    draws = [np.concatenate([kits[i] for i in random.integers(len(kits), size=len(kits))]).mean() for _ in range(DRAWS)]
    return f"{gain.mean():+.3f} ± {np.std(draws):.3f}"


def _write(file: Path, line: dict, accuracy: float) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.write(json.dumps(line) + "\n")
    print(f"{line['method']}, without {line['kit']}, seed {line['seed']}: {accuracy:.3f}", flush=True)


if __name__ == "__main__":
    main()
