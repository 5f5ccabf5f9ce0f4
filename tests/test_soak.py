"""A long run keeps its memory, its files and its shared memory: half an hour, or ``MULTIMODAL_SOAK_SECONDS``."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from multimodal.cli import main

ROOT = Path(__file__).resolve().parent.parent
SECONDS = int(os.environ.get("MULTIMODAL_SOAK_SECONDS", "1800"))
MEBIBYTE = 2**20


def write_shards(folder: Path) -> Path:
    """Write 1,797 digits in two splits."""
    digits = load_digits()
    for number, (image, target) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / "files" / ("val" if number % 10 == 0 else "train") / str(target) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).resize((28, 28)).save(path)
    assert main(["shards", "write", str(folder / "files"), "--to", str(folder / "shards"), "--split", "folders"]) == 0
    return folder / "shards"


def tree(number: int) -> list[int]:
    """Return a process and all that it started."""
    found = [number]
    for task in Path(f"/proc/{number}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def measure(number: int) -> dict[str, float]:
    processes = tree(number)
    pages = sum(int(Path(f"/proc/{process}/statm").read_text().split()[1]) for process in processes)
    files = sum(len(os.listdir(f"/proc/{process}/fd")) for process in processes)
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE,
        "files": files,
        "processes": len(processes),
        "shared": len(shared(processes)),
    }


def shared(processes: list[int]) -> list[str]:
    """Return the files in shared memory that PyTorch named after one of the processes."""
    return [name for name in os.listdir("/dev/shm") if set(map(str, processes)) & set(name.split("_"))]


def watch(process: subprocess.Popen, every_s: float) -> tuple[list[dict[str, float]], set[int]]:
    """Measure until the process ends; return that, and all processes that were seen."""
    measured, seen = [], set()
    while process.poll() is None:
        try:
            measured.append(measure(process.pid) | {"time": time.monotonic()})
            seen |= set(tree(process.pid))
        except (FileNotFoundError, ProcessLookupError):
            pass  # one ended while it was looked at
        time.sleep(every_s)
    return measured, seen


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_a_long_run_keeps_its_memory_and_its_files(tmp_path):
    shards = write_shards(tmp_path)
    minutes, seconds = divmod(SECONDS, 60)
    settings = ["--data.init_args.shards", str(shards), "--data.init_args.num_workers", "2", "--data.init_args.batch_size", "32"]
    settings += ["--trainer.max_epochs", "1000000", "--trainer.max_time", f"00:{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"]
    settings += [
        "--trainer.enable_progress_bar",
        "false",
        "--run",
        str(tmp_path / "run"),
        "--model.init_args.optimizer.init_args.lr",
        "1e-4",
    ]
    command = [sys.executable, "-m", "multimodal", "fit", "--config", str(ROOT / "configs/tokenizer/digits.yaml"), *settings]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    measured, seen = watch(process, every_s=min(1.0, SECONDS / 200))
    assert process.returncode == 0, (tmp_path / "log").read_text()[-3000:]

    training = [values for values in measured if values["processes"] == max(values["processes"] for values in measured)]
    start, length = training[0]["time"], training[-1]["time"] - training[0]["time"]
    share = [(values, (values["time"] - start) / length) for values in training]
    first = [values for values, done in share if 0.1 <= done < 0.15]
    last = [values for values, done in share if done >= 0.95]
    medians = {
        name: [statistics.median(values[name] for values in part) for part in (first, last)] for name in ("memory", "files", "shared")
    }
    print(f"{SECONDS} s, {len(measured)} measurements, {training[0]['processes']} processes; at 10 % and at the end: {medians}")
    assert length > 0.7 * SECONDS
    assert medians["memory"][1] < 1.05 * medians["memory"][0]
    assert medians["files"][1] <= medians["files"][0]
    assert medians["shared"][1] <= medians["shared"][0]
    assert shared(sorted(seen)) == []
