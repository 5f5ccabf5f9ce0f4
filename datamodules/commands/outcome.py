"""What a command says at its end about shards that it made from others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from multimodal.datamodules.jobs.folder_run import WriteResult

MOST_PROBLEMS = 20


def print_outcome(result: WriteResult, lacking: str, console: Console, about: str = "") -> None:
    """Print what the shards hold, or which parts are still missing; how many shards were kept; the samples with a problem.

    Args:
        result: of the run.
        lacking: what those samples were written without.
        console: where to print.
        about: a line below the tables of what the shards hold; "": none.
    """
    from multimodal.datamodules.checking.summary import print_index

    if result.index is None:
        console.print(f"this part is complete; still missing: {', '.join(map(str, result.missing))}")
    else:
        print_index(result.index, console)
    if about:
        console.print(about, markup=False, highlight=False, soft_wrap=True)
    if result.kept:
        console.print(f"kept {result.kept:,} shards that were finished before")
    if result.problems:
        console.print(f"written without {lacking}: {len(result.problems):,} samples", style="bold red")
        for problem in result.problems[:MOST_PROBLEMS]:
            console.print(f"  {problem}", markup=False, highlight=False, soft_wrap=True)
        if len(result.problems) > MOST_PROBLEMS:
            console.print(f"  ... {len(result.problems) - MOST_PROBLEMS:,} more")
