"""A run folder as `fit` leaves it, written by hand."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_metrics(folder: Path, version: int, rows: list[dict]) -> None:
    path = folder / f"metrics/version_{version}/metrics.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted({name for row in rows for name in row}))
        writer.writeheader()
        writer.writerows(rows)


def write_picture(folder: Path, modality: str, step: int) -> None:
    path = folder / f"pictures/{modality}/step-{step:08d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(step).integers(0, 256, (60, 100, 3), dtype=np.uint8)).save(path)


def write_probes(folder: Path, rows: list[tuple]) -> None:
    with (folder / "probe.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("step", "modality", "layer", "method", "labels_per_class", "accuracy", "std", "draws"))
        writer.writerows(rows)


@pytest.fixture
def run(tmp_path):
    """Two modalities, one with fields; the run was stopped at step 40 and continued from step 30."""
    folder = tmp_path / "night & day"
    for version, steps in ((9, range(0, 41, 10)), (10, range(30, 101, 10))):
        rows = []
        for step in steps:
            for stage in ("train", "val"):
                rows.append(
                    {
                        "step": step,
                        "epoch": step // 50,
                        f"{stage}/loss/drawing": 5 / (step + 1) + version,
                        f"{stage}/accuracy/drawing": step / 100,
                        f"{stage}/loss/melody": 3.0,
                        f"{stage}/accuracy/melody": 0.25,
                        f"{stage}/accuracy/melody_pitch": 0.5 + step / 1000,
                        f"{stage}/accuracy/melody_length": 0.75,
                    }
                )
        write_metrics(folder, version, rows)
    for step in (0, 50, 100):
        write_picture(folder, "drawing", step)
    write_picture(folder, "melody", 100)
    write_probes(folder, [(0, "drawing", "out", "knn", 10, 0.5, 0.01, 5), (0, "drawing", "out", "linear", 0, 0.6, 0, 1)])
    with (folder / "probe.csv").open("a") as file:
        file.write("100,drawing,out,knn,10,0.75,0.02,5\n100,drawing,out,linear,0,0.9,0,1\n")
    (folder / "config.yaml").write_text("seed_everything: 0\nnote: <script>alert('x')</script>\n")
    return folder


@pytest.fixture
def tokenizer_run(tmp_path):
    folder = tmp_path / "tokenizer"
    rows = [
        {"step": step, "epoch": 0, "train/loss": 0.3 - step / 1000, "val/loss": 0.2, "val/reconstruction": 0.1, "val/codebook/usage": 0.5}
        | {"val/codebook/perplexity": 20 + step, "val/codebook/dead_codes": 64}
        for step in (0, 50, 100)
    ]
    write_metrics(folder, 0, rows)
    write_picture(folder, "drawing", 50)
    return folder
