"""The same commands on real films of which nothing is said: clips, clusters, and clips predicted from clips, for a few steps.

``python -m benchmarks.narrated_digits.real``, after ``benchmarks.narrated_digits.run``, whose encoder makes the features: it shows that the
way is open for any film, not what can be learned from six.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.hidden_frames.films import film_files
from benchmarks.narrated_digits.run import CLUSTERS, DATA, RECIPES, RUNS

FILMS, REAL = DATA / "real", RUNS / "real"
FETCHED = Path("data/hidden_frames")
FOR_VALIDATION = ("carphone_pristine.mp4", "cup.mp4")


def main() -> None:
    """Fetch the films where they are not there, and run the commands."""
    for name, data in film_files(FETCHED).items():
        path = FILMS / "files" / ("val" if name in FOR_VALIDATION else "train") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            path.write_bytes(data)
    for recipe in ("vocabulary.yaml", "videobert.yaml"):
        REAL.mkdir(parents=True, exist_ok=True)
        (REAL / recipe).write_text((RECIPES / recipe).read_text().replace(str(CLUSTERS), str(REAL / "clusters")))
    for command in commands():
        print("$ multimodal", *command, flush=True)
        subprocess.run([sys.executable, "-m", "multimodal", *command], check=True)


def commands() -> list[list[str]]:
    """Return what ``multimodal`` is run with, in order."""
    files, shards, features, ids = (str(FILMS / name) for name in ("files", "shards", "features", "ids"))
    clusters, run = str(REAL / "clusters"), str(REAL / "videobert")
    fit = ["fit", "--config", str(REAL / "videobert.yaml"), "--data.init_args.shards", ids, "--data.init_args.batch_size", "4"]
    return [
        ["shards", "write", files, "--to", shards, "--split", "folders"],
        ["clips", "features", shards, "--config", str(RECIPES / "clips.yaml"), "--to", features],
        ["clips", "cluster", features, "--branching", "4", "--depth", "2", "--to", clusters],
        ["clips", "encode", features, "--tokenizer", clusters, "--to", ids, "--keep-features"],
        ["clips", "show", ids, "--films", shards, "--tokenizer", clusters, "--to", str(REAL / "clusters.html")],
        [*fit, "--trainer.max_epochs", "20", "--trainer.log_every_n_steps", "1", "--run", run],
        ["validate", "--config", f"{run}/config.yaml", "--ckpt_path", f"{run}/checkpoints/last.ckpt"],
    ]


if __name__ == "__main__":
    main()
