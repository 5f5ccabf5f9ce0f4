"""``multimodal report``."""

import argparse
from pathlib import Path

from multimodal.report.page import write_report


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        "multimodal report",
        description="Write one self-contained HTML page about a run: curves, pictures, codebook, probes.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, help="folder of the run, as given to `fit --run`")
    parser.add_argument("--to", type=Path, help="the page; default: RUN/report.html")
    parser.add_argument("--tokenizer-run", type=Path, help="folder of the tokenizer's run, to show it on the same page")
    options = parser.parse_args(arguments)
    print(write_report(options.run, options.to, options.tokenizer_run))
    return 0
