"""Write, check and tokenize the Tux Paint stamps, train on them with two processes of two workers, kill that with SIGKILL, and go on.

``python -m benchmarks.stamps.run STAMPS`` with the folder ``usr/share/tuxpaint/stamps`` of the Debian package ``tuxpaint-stamps-default``
(``apt-get download`` and ``dpkg -x`` unpack it without installing). It prints each command, and at the end what became of the samples.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from multimodal.datamodules.shards.index import ShardIndex

HERE = Path(__file__).parent
ROOT = Path("data/stamps")
SPEECH = "(?P<key>.+?)_(?P<field>(desc|[a-z]{2})(_[a-zA-Z]{2})?\\.ogg)"
EVERY = 5


def multimodal(*arguments: str) -> None:
    """Run a command of ours."""
    print("$ multimodal", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "multimodal", *arguments], check=True)


def fit(run: Path, *more: str) -> subprocess.Popen[bytes]:
    """Start training in a session of its own, so that all its processes can be killed together."""
    checkpoint = f'{{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {{"dirpath": "{run}/checkpoints", '
    checkpoint += f'"save_last": true, "every_n_train_steps": {EVERY}}}}}'
    arguments = ["fit", "--config", str(HERE / "pretrain.yaml"), "--run", str(run), "--trainer.callbacks+", checkpoint, *more]
    print("$ multimodal", *arguments, flush=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "multimodal", *arguments], start_new_session=True, env=environment)


def steps(run: Path, rank: int) -> list[dict[str, object]]:
    """Return the diary of a rank."""
    path = run / f"steps.{rank}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def kill_at(process: subprocess.Popen[bytes], run: Path, step: int) -> int:
    """Kill all processes when a step is done, and return how many were done."""
    while len(steps(run, 0)) < step:
        if process.poll() is not None:
            raise SystemExit("the run ended before it was killed")
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return len(steps(run, 0))


def main() -> None:
    """Do it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stamps", help="folder usr/share/tuxpaint/stamps of the package")
    parser.add_argument("--kill-at", type=int, default=17, metavar="STEP")
    options = parser.parse_args()
    shutil.rmtree(ROOT, ignore_errors=True)
    wanted = ["--require", "png,txt,desc_fr.ogg", "--extensions", "png,txt,ogg", "--field-pattern", SPEECH]
    shares = ["--split", "train=0.8,test=0.2", "--deduplicate", "--samples-per-shard", "60"]
    multimodal("shards", "write", options.stamps, "--to", f"{ROOT}/shards", *wanted, *shares)
    multimodal("shards", "verify", f"{ROOT}/shards", "--deep")
    multimodal("fit", "--config", str(HERE / "tokenizer.yaml"), "--run", f"{ROOT}/tokenizer")
    source = ["--config", str(HERE / "pretrain.yaml"), "--crops", "2"]
    multimodal("shards", "tokenize", f"{ROOT}/shards", "--to", f"{ROOT}/tokenized", "--modality", "image", *source)
    multimodal("shards", "verify", f"{ROOT}/tokenized")
    whole, broken = ROOT / "whole", ROOT / "killed"
    if fit(whole).wait():
        raise SystemExit("the run failed")
    done = kill_at(fit(broken), broken, options.kill_at)
    kept = done // EVERY * EVERY
    print(f"killed after step {done}; the last checkpoint is that of step {kept}")
    if fit(broken, "--ckpt_path", "last").wait():
        raise SystemExit("the resumed run failed")
    compare(whole, broken, kept, done)


def compare(whole: Path, broken: Path, kept: int, done: int) -> None:
    """Print whether the two runs are one."""
    read: Counter[str] = Counter()
    equal = True
    for rank in range(2):
        expected, got = steps(whole, rank), steps(broken, rank)
        again = next(number for number in range(done - 1, len(got)) if got[number]["batch"] == kept) if kept < len(expected) else len(got)
        joined = got[:kept] + got[again:]
        equal &= joined == expected
        read.update(key for line in joined for key in line["keys"])  # type: ignore[attr-defined]
    samples = ShardIndex.load(ROOT / "tokenized").num_samples("train")
    skipped = len({line for path in broken.glob("bad_samples*.csv") for line in path.read_text().splitlines()})  # some were met twice
    print(f"steps of each rank: {len(steps(whole, 0))}; samples of the split: {samples}, left out: {skipped}")
    print(f"samples read by both ranks, before the kill and after it: {read.total()}, each of them {set(read.values())} times")
    print(f"steps (keys, losses to the last bit) equal to those of the run that was not killed: {equal}")
    if not (equal and set(read.values()) == {1} and read.total() + skipped == samples):
        raise SystemExit("the runs differ")


if __name__ == "__main__":
    main()
