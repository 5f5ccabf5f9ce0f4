"""``multimodal clips retrieve``: find films by what is said in them, and the other way round."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from multimodal.clips.commands.model_options import add_model_options, check_counts, check_file, opened, write_lines

if TYPE_CHECKING:
    from rich.table import Table

    from multimodal.clips.retrieve import Retrieved

SUMMARY = "find films by their words, and words by their film, and score it"
DESCRIPTION = (
    "Compare what is said in each film, or in each sentence of one, with the clips of all of them, and tell the ranks of the right ones."
)
EPILOG = """\
--by alignment reads each text with the clips of each film as one sequence, and takes the logit that they belong together: as many sequences
as the square of the films (--most bounds them). --by embeddings compares the mean word of a text with the mean clip of a film. Equal texts
are right for each other's films; of equal scores the expected rank counts.

example:
  multimodal clips retrieve runs/videobert data/films-ids --spans --most 500 --to found.jsonl
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    add_model_options(parser)
    how = ["alignment", "embeddings"]
    parser.add_argument("--by", nargs="+", choices=how, default=how, help="what is compared (default: both)")
    parser.add_argument("--most", type=int, metavar="N", help="compare only the first so many (default: all)")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="answers to write for each question (default: %(default)s)")
    parser.add_argument("--to", type=Path, metavar="FILE.jsonl", help="also write the best answers")


def run(options: argparse.Namespace) -> int:
    """Run it and return the exit code."""
    check_counts(options, "top", *(["most"] if options.most is not None else []))
    if options.to:
        check_file(options.to)
    from rich.console import Console

    from multimodal.clips.films import stretches_of
    from multimodal.clips.retrieve import as_lines, retrieve
    from multimodal.datamodules.commands.progress import ProgressBar

    model, source = opened(options)
    there = (stretch for stretch, _ in stretches_of(source, options.split, model.transform, options.spans) if stretch.text.strip())
    pairs, found = list(islice(there, options.most)), {}
    for by in dict.fromkeys(options.by):
        count = len(pairs) ** 2 if by == "alignment" else 2 * len(pairs)
        with ProgressBar(f"comparing by {by}", count, Console(stderr=True)) as progress:
            found[by] = retrieve(model, pairs, by, options.top, lambda done, bar=progress: bar.advance(done, 0))
    Console().print(_table(found, len(pairs)))
    if options.to:
        lines = ({"by": by, **line} for by, own in found.items() for line in as_lines(own, pairs))
        print(f"{options.to}: {write_lines(options.to, lines):,} lines")
    return 0


def _table(found: dict[str, Retrieved], pairs: int) -> Table:
    from rich.table import Table

    table = Table("compared by", "direction", "R@1", "R@5", "R@10", "median rank", "mean 1/rank", title=f"{pairs:,} pairs")
    for by, own in found.items():
        for direction, scores in own.scores.items():
            recalls = [f"{scores[f'recall_{k}']:.3f}" for k in (1, 5, 10)]
            table.add_row(
                by, direction.replace("_", " "), *recalls, f"{scores['median_rank']:.1f}", f"{scores['mean_reciprocal_rank']:.3f}"
            )
    return table
