"""The demo's table: what pretraining gave, beside the same encoder untrained and beside simple baselines.

``python -m benchmarks.demo.table RUN`` after ``multimodal test`` wrote RUN/test.json
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.demo.baselines import TableBaseline, few_labels, grid_neighbours, hog_svm_accuracy, sequence_neighbours
from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.lightning_cli import load_run
from multimodal.modality import Modality

SEEDS = range(5)
LABELS = 10
HEAD = ("task, test split", "pretrained", "untrained", "simple baselines")
TASKS = {"image": "digit", "midi": "kind of tune"}
Row = tuple[str, str, str, str]


def main(run: str) -> int:
    """Print the table and write it to ``RUN/table.json``."""
    model, data = load_run(run)
    scores = json.loads((Path(run) / "test.json").read_text())
    rows = probe_rows(Path(run), {"image": svm_scores(data)})
    for name, modality in model.modalities.items():
        rows += masked_rows(name, modality, data, scores)
    table = Table(*HEAD)
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)
    (Path(run) / "table.json").write_text(json.dumps([HEAD, *rows], indent=2) + "\n")
    return 0


def probe_rows(run: Path, baselines: dict[str, str]) -> list[Row]:
    """Return the linear probes with few labels: of the pretrained encoder, and of the same one before it was trained."""
    with (run / "probe.csv").open(newline="") as file:
        found = [row for row in csv.DictReader(file) if row["method"] == "linear" and row["labels_per_class"] == str(LABELS)]
    rows = []
    for modality, task in TASKS.items():
        first, *_, last = (f"{float(row['accuracy']):.3f} ± {float(row['std']):.3f}" for row in found if row["modality"] == modality)
        rows.append((f"{task}, {LABELS} labels per class", last, first, baselines.get(modality, "")))
    return rows


def svm_scores(data: ShardDataModule) -> str:
    """Return the accuracy of support vector machines on the same digits, with as many labels."""
    (x, y), (x_test, y_test) = (_digits(data, split) for split in ("train", "test"))
    chosen = [few_labels(y, LABELS, seed) for seed in SEEDS]
    pixels, gradients = (
        statistics.mean(hog_svm_accuracy(x[i], y[i], x_test, y_test, use_hog) for i in chosen) for use_hog in (False, True)
    )
    return f"SVM: pixels {pixels:.3f}, oriented gradients {gradients:.3f}"


def masked_rows(name: str, modality: Modality, data: ShardDataModule, scores: dict[str, float]) -> list[Row]:
    """Return the accuracy at the hidden tokens of the test split: the encoder's, the table's and the majority's."""
    ids, neighbours, _ = _tokens(name, modality, data, "train")
    contexts = [(0, 1), (0,), (1,)] if len(neighbours) == 2 else [(0, 1, 2, 3), (0, 1), (2, 3), (0,), (1,), (2,), (3,)]
    table = TableBaseline(modality.tokenizer.vocab_sizes, contexts).fit(ids, neighbours)
    by_table, by_majority = table.accuracies(*_tokens(name, modality, data, "test"))
    fields = modality.tokenizer.field_names
    rows = [(f"{name}, mean of the fields", f"{name}", by_table.mean(), by_majority.mean())] if len(fields) > 1 else []
    for number, field in enumerate(fields):
        key = name if len(fields) == 1 else f"{name}_{field}"
        rows.append((f"{name} {field}", key, by_table[number], by_majority[number]))
    return [
        (f"hidden {what}", f"{scores[f'test/accuracy/{key}']:.3f}", "", f"table of neighbours {x:.3f}, majority {y:.3f}")
        for what, key, x, y in rows
    ]


def _tokens(name: str, modality: Modality, data: ShardDataModule, split: str) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Return the ids of a split, the neighbours of each token, and which are hidden when the split is tested."""
    views = [modality.masked_view(batch.items[name]) for batch in data.evaluation_dataloader(split) if name in batch.items]
    ids = torch.cat([view.targets for view in views]).numpy()
    lengths = torch.cat([view.tokens.lengths for view in views]).numpy()
    grid = views[0].tokens.grid
    neighbours = sequence_neighbours(lengths) if grid is None else grid_neighbours(len(lengths), *grid)
    return ids, neighbours, torch.cat([view.masked for view in views]).numpy()


def _digits(data: ShardDataModule, split: str) -> tuple[np.ndarray, np.ndarray]:
    batches = _with_images(data.evaluation_dataloader(split))
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _with_images(loader: Iterable) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    for batch in loader:
        if "image" in batch.items:
            items = batch.items["image"]
            yield items.values[:, 0].numpy(), batch.labels["label"][items.sample].numpy()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
