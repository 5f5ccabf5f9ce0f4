"""``multimodal clips classify``: tell what films show by words in the gaps of a sentence, without training for it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from multimodal.clips.commands.model_options import add_model_options, check_counts, check_file, in_blocks, opened, write_lines

if TYPE_CHECKING:
    from multimodal.clips.classify import TemplateClassifier
    from multimodal.clips.films import Stretch

SUMMARY = "rank words by how well they fit the gaps of a sentence about a film (zero-shot, VideoBERT)"
DESCRIPTION = "Rank words by how well they fit the gaps of a sentence before a film, or before the part of it in which a sentence is said."
EPILOG = """\
Each [MASK] of a template is a gap, and each --words FILE, one word a line, the list of one gap, in their order. A word of several pieces is
scored by the mean log-probability of its pieces at as many masks; probabilities are among the words of the list. With several templates
they are averaged. A line of FILE.jsonl has the key, with --spans the sentence and its times, the best words of each gap, and with several
gaps the best combinations.

example:
  multimodal clips classify runs/videobert data/films-ids --template "now let me show you how to [MASK] the [MASK]." \\
      --words verbs.txt --words nouns.txt --split test --to ranked.jsonl
"""
AT_ONCE = 64


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    add_model_options(parser)
    parser.add_argument("--template", action="append", required=True, metavar="TEXT", help="sentence with [MASK]; may be given again")
    parser.add_argument("--words", action="append", required=True, type=Path, metavar="FILE", help="words of a gap; one for each [MASK]")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="words of a gap to write (default: %(default)s)")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE.jsonl", help="file to write")


def run(options: argparse.Namespace) -> int:
    """Run it and return the exit code."""
    check_counts(options, "top")
    check_file(options.to)
    from rich.console import Console

    from multimodal.clips.classify import TemplateClassifier, read_words
    from multimodal.clips.films import stretches_of
    from multimodal.datamodules.commands.progress import ProgressBar

    words = [read_words(path) for path in options.words]
    model, source = opened(options)
    classifier = TemplateClassifier(model, options.template, words)
    stretches = (stretch for stretch, _ in stretches_of(source, options.split, model.transform, options.spans))
    with ProgressBar("classifying", source.num_samples(options.split), Console(stderr=True)) as progress:
        count = write_lines(options.to, _lines(classifier, stretches, options.top, progress.advance))
    said = f"{count:,} {'sentences' if options.spans else 'films'}, {' x '.join(str(len(own)) for own in words)} words: {options.to}"
    Console().print(said, markup=False, highlight=False, soft_wrap=True)
    return 0


def _lines(
    classifier: TemplateClassifier, stretches: Iterator[Stretch], top: int, listener: Callable[[int, int], object]
) -> Iterator[Mapping[str, object]]:
    from multimodal.clips.classify import as_line

    told = ""
    for block in in_blocks(stretches, AT_ONCE):
        for stretch, *own in zip(block, *classifier(block), strict=True):
            listener(int(stretch.key != told), 0)
            told = stretch.key
            yield as_line(stretch, classifier.ranked(own, top), classifier.combined(own, top))
