"""Segment 500 pictures of unseen objects on unseen backgrounds, from 200 labelled ones: baselines, from nothing, pretrained.

``python -m benchmarks.segmentation.run`` after ``benchmarks.segmentation.compose`` and ``multimodal shards write`` (benchmarks/README.md).
``--model FOLDER`` adds the encoder that was pretrained on the 4,000 pictures to train on, without their masks, as
``multimodal export RUN --format multimodal`` saves it. Scores are computed from the files that ``multimodal predict`` writes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.segmentation import baselines
from benchmarks.segmentation.scoring import Scores, score_files

RECIPE = "configs/finetune/stamps_segmentation.yaml"
ROOT = Path("data/segmentation")
LABELLED, TEST = ROOT / "labelled_files/train", ROOT / "files/test"


def multimodal(*arguments: str) -> None:
    """Run a command of ours on one core, with its output in a file beside the run."""
    print("$ multimodal", *arguments, flush=True)
    subprocess.run(
        [sys.executable, "-m", "multimodal", *arguments], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL
    )


def pretrained(model: str) -> list[str]:
    """Return the options that put a saved encoder and its embedding in the place of new ones."""
    encoder = {"class_path": "multimodal.pretrained.load_encoder", "init_args": {"folder": model}}
    embed = {"class_path": "multimodal.pretrained.load_embed", "init_args": {"folder": model, "modality": "image"}}
    place = "--model.init_args.modalities.image.init_args.embed"
    return ["--model.init_args.encoder", json.dumps(encoder), place, json.dumps(embed)]


def finetune(run: Path, seed: int, more: list[str]) -> Scores:
    """Train, predict and score.

    Raises:
        SystemExit: the command's own score of the same predictions is another.
    """
    shutil.rmtree(run, ignore_errors=True)
    multimodal("fit", "--config", RECIPE, "--run", str(run), "--seed_everything", str(seed), *more)
    last = ["--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints/last.ckpt")]
    multimodal("test", *last)
    multimodal("predict", *last)
    found = score_files(TEST, run / "predictions/image")
    said = json.loads((run / "test.json").read_text())["test/mean_iou"]
    if abs(said - found.mean_iou) > 1e-4:
        raise SystemExit(f"`multimodal test` says {said:.4f}, the files say {found.mean_iou:.4f}")
    return found


def show(name: str, found: list[Scores]) -> None:
    """Print a row: means over seeds, with the range of the first."""
    columns = [statistics.mean(column) for column in zip(*found, strict=True)]
    spread = f" ({min(found).mean_iou:.3f} to {max(found).mean_iou:.3f})" if len(found) > 1 else ""
    print(f"| {name} | {columns[0]:.3f}{spread} | {columns[1]:.3f} | {columns[2]:.3f} |", flush=True)


def main() -> None:
    """Do it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder of an encoder that was pretrained on the unlabelled pictures")
    parser.add_argument("--seeds", type=int, default=1, metavar="N")
    parser.add_argument("--run", default="runs/segmentation", metavar="FOLDER")
    parser.add_argument("more", nargs="*", help="after --: options of `multimodal fit`")
    options = parser.parse_args()
    kinds = {"from nothing": ["--model.init_args.layer_decay", "null"]}  # first layers that know nothing have all to learn
    kinds |= {"pretrained without labels": pretrained(options.model)} if options.model else {}
    rows = {"all background": [baselines.score(baselines.background, TEST)]}
    rows["colour threshold"] = [baselines.score(baselines.fit_threshold(LABELLED), TEST)]
    rows["pixel forest"] = [baselines.score(baselines.fit_forest(LABELLED), TEST)]
    for name, more in kinds.items():
        start = time.monotonic()
        folder = Path(options.run) / name.partition(" ")[0]
        rows[name] = [finetune(folder / str(seed), seed, [*more, *options.more]) for seed in range(options.seeds)]
        print(f"{name}: {(time.monotonic() - start) / options.seeds:.0f} s each")
    print("| | mean IoU of 5 classes | IoU of objects | accuracy |\n|---|---|---|---|")
    for name, found in rows.items():
        show(name, found)


if __name__ == "__main__":
    main()
