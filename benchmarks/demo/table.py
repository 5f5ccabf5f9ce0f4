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
MASKED = "encoder (table of neighbours, majority)"


def main(run: str) -> int:
    """Print the table and write it to ``RUN/table.json``."""
    model, data = load_run(run)
    scores = json.loads((Path(run) / "test.json").read_text())
    rows = [*probe_rows(Path(run)), *svm_rows(data)]
    for name, modality in model.modalities.items():
        rows += masked_rows(name, modality, data, scores)
    table = Table("accuracy on the test split", "score", "how")
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)
    (Path(run) / "table.json").write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def probe_rows(run: Path) -> list[tuple[str, str, str]]:
    """Return the linear probes at 10 labels per class, before and after pretraining."""
    with (run / "probe.csv").open(newline="") as file:
        found = [row for row in csv.DictReader(file) if row["method"] == "linear" and row["labels_per_class"] == "10"]
    rows = []
    for modality, what in (("image", "digit"), ("midi", "tune")):
        first, *_, last = (row for row in found if row["modality"] == modality)
        for name, row in (("untrained encoder", first), ("pretrained encoder", last)):
            score = f"{float(row['accuracy']):.3f} ± {float(row['std']):.3f}"
            rows.append((f"kind of {what}, 10 labels each: {name}", score, "linear probe, mean of 5 draws"))
    return rows


def svm_rows(data: ShardDataModule) -> list[tuple[str, str, str]]:
    """Return the simple baselines on the same digits."""
    (x, y), (x_test, y_test) = (_digits(data, split) for split in ("train", "test"))
    rows = []
    for name, use_hog in (("pixels", False), ("oriented gradients", True)):
        chosen = [few_labels(y, 10, seed) for seed in SEEDS]
        scores = [hog_svm_accuracy(x[i], y[i], x_test, y_test, use_hog) for i in chosen]
        score = f"{statistics.mean(scores):.3f} ± {statistics.pstdev(scores):.3f}"
        rows.append((f"kind of digit, 10 labels each: {name}", score, "support vector machine, 5 draws"))
    return rows


def masked_rows(name: str, modality: Modality, data: ShardDataModule, scores: dict[str, float]) -> list[tuple[str, str, str]]:
    """Return the accuracy at the hidden tokens of the test split: the encoder's, the table's and the majority's."""
    tokenizer = modality.tokenizer
    ids, neighbours, _ = _tokens(name, modality, data, "train")
    contexts = [(0, 1), (0,), (1,)] if len(neighbours) == 2 else [(0, 1, 2, 3), (0, 1), (2, 3), (0,), (1,), (2,), (3,)]
    table = TableBaseline(tokenizer.vocab_sizes, contexts).fit(ids, neighbours)
    by_table, by_majority = table.accuracies(*_tokens(name, modality, data, "test"))
    rows = []
    fields = tokenizer.field_names
    for number, field in enumerate(fields):
        key = f"test/accuracy/{name}" if len(fields) == 1 else f"test/accuracy/{name}_{field}"
        score = f"{scores[key]:.3f} ({by_table[number]:.3f}, {by_majority[number]:.3f})"
        rows.append((f"hidden {name} {field}", score, MASKED))
    if len(fields) > 1:
        score = f"{scores[f'test/accuracy/{name}']:.3f} ({by_table.mean():.3f}, {by_majority.mean():.3f})"
        rows.append((f"hidden {name}, mean of the fields", score, MASKED))
    return rows


def _tokens(name: str, modality: Modality, data: ShardDataModule, split: str) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Return the ids of a split, the neighbours of each token, and which are hidden when the split is tested."""
    views = [modality.masked_view(batch.items[name]) for batch in data.evaluation_dataloader(split) if name in batch.items]
    ids = torch.cat([view.ids for view in views]).numpy()
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
