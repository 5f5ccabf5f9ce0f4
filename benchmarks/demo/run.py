"""``make demo``: each step is a command that you could type; the last prints the table.

``python -m benchmarks.demo.run``
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

RUNS, DATA = Path("runs/demo"), Path("data/demo")
MULTIMODAL = [sys.executable, "-m", "multimodal"]
COMMANDS = (
    "python -m benchmarks.demo.digits data/demo/digits",
    "python -m benchmarks.demo.tunes data/demo/tunes",
    "multimodal shards write data/demo/digits --to data/demo/shards/digits --split folders --overwrite",
    "multimodal shards write data/demo/tunes --to data/demo/shards/tunes --split folders --overwrite",
    "multimodal fit --config configs/tokenizer/digits.yaml",
    "multimodal fit --config configs/pretrain/demo.yaml",
    "multimodal test --config runs/demo/pretrain/config.yaml --ckpt_path runs/demo/pretrain/checkpoints/last.ckpt",
    "multimodal report runs/demo/pretrain --tokenizer-run runs/demo/tokenizer --to runs/demo/report.html",
    "python -m benchmarks.demo.table runs/demo/pretrain",
)


def main() -> int:
    """Run the commands one after the other; return the exit code of the first that fails, else 0."""
    if not Path("configs/pretrain/demo.yaml").is_file():
        print("error: run the demo in the root of the repository.", file=sys.stderr)
        return 2
    shutil.rmtree(RUNS, ignore_errors=True)  # the demo's own folder: its last run
    started = time.monotonic()
    for number, command in enumerate(COMMANDS, start=1):
        print(f"\n[{number}/{len(COMMANDS)}, {_clock(started)}] $ {command}", flush=True)
        code = subprocess.run(_arguments(command), check=False).returncode
        if code:
            print(f"error: the command above ended with exit code {code}.", file=sys.stderr)
            return code
    print(f"\nDone in {_clock(started)} minutes. Open {RUNS / 'report.html'} to see the curves and the pictures.")
    return 0


def _arguments(command: str) -> list[str]:
    """Return the command with this interpreter, so that no environment needs to be activated."""
    program, *rest = command.split()
    return [sys.executable, *rest] if program == "python" else [*MULTIMODAL, *rest]


def _clock(started: float) -> str:
    seconds = round(time.monotonic() - started)
    return f"{seconds // 60}:{seconds % 60:02d}"


if __name__ == "__main__":
    raise SystemExit(main())
