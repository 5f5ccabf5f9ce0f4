"""What a command costs before it does anything: processor time from its start to its end, in a process of its own.

``--help`` and ``--version`` are beside an empty Python; ``fit --print_config``, which reads a config and checks every name and value in it
but loads no data, is beside the mere import of PyTorch and Lightning.

    python -m benchmarks.command_start
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.side_by_side import Candidate, Speeds, machine, measure

CONFIG = Path(__file__).parents[1] / "configs" / "pretrain" / "images.yaml"
EMPTY, IMPORTS = "python -c pass", "python -c 'import torch, lightning'"
COMMANDS: dict[str, tuple[str, list[str]]] = {
    EMPTY: ("", ["-c", "pass"]),
    "multimodal --version": (EMPTY, ["-m", "multimodal", "--version"]),
    "multimodal --help": (EMPTY, ["-m", "multimodal", "--help"]),
    "multimodal shards write --help": (EMPTY, ["-m", "multimodal", "shards", "write", "--help"]),
    IMPORTS: ("", ["-c", "import torch, lightning"]),
    "multimodal fit --config ... --print_config": (IMPORTS, ["-m", "multimodal", "fit", "--config", str(CONFIG), "--print_config"]),
}
"""What is run -> what it is compared with, and the arguments of Python."""


def start(arguments: Sequence[str]) -> Candidate:
    """Return a call that runs Python to its end, once.

    Raises:
        ValueError: (by the call) it ended with an error.
    """

    def run() -> int:
        ended = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
        if ended.returncode:
            raise ValueError(f"python {' '.join(arguments)} ended with {ended.returncode}: {ended.stderr.strip().splitlines()[-1:]}.")
        return 1

    return run


def seconds_table(speeds: Sequence[Speeds]) -> Table:
    """Return a table of processor seconds, with what each is compared with."""
    named = {speed.name: speed for speed in speeds}
    shown = Table("", "CPU-s", "spread", "times as long as", "in the rounds", title="start of a command")
    for speed in speeds:
        peer = named.get(COMMANDS[speed.name][0])
        ratios = [] if peer is None else peer.ratios(speed)
        factor = (
            [f"{statistics.median(ratios):.2f}x {peer.name}", f"{min(ratios):.2f} to {max(ratios):.2f}"] if peer is not None else ["", ""]
        )
        shown.add_row(speed.name, f"{1 / speed.median:.2f}", f"±{speed.spread:.0%}", *factor)
    return shown


def main(arguments: Sequence[str] | None = None, show: Callable[..., None] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is run (default: %(default)s)")
    parser.add_argument(
        "--only", nargs="+", choices=list(COMMANDS), default=list(COMMANDS), metavar="COMMAND", help="of those in the table"
    )
    options = parser.parse_args(arguments)
    show = show or Console(width=140).print
    show(seconds_table(measure({name: start(COMMANDS[name][1]) for name in options.only}, options.rounds)))
    show(machine(["torch", "lightning"]))


if __name__ == "__main__":
    main()
