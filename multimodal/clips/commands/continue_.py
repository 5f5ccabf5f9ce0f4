"""``multimodal clips continue``: the likeliest next clips of films."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from multimodal.clips.commands.model_options import add_model_options, check_counts, check_file, in_blocks, opened, write_lines

if TYPE_CHECKING:
    from multimodal.clips.continuation_page import Continuation
    from multimodal.clips.film_model import FilmModel
    from multimodal.clips.films import Stretch
    from multimodal.datamodules.shards.index import ShardIndex

SUMMARY = "tell the likeliest next clips of films, with pictures of their clusters (VideoBERT)"
DESCRIPTION = "Tell which clips are likeliest to come after the first ones of films, each step from the likeliest clips before it."
EPILOG = """\
--given 0 with --words asks for the clips that go with a text. A line of FILE.jsonl has the clips so far, the likeliest ids of each next one
with their probabilities among all clips, and the ids that follow in the film. The page shows each cluster by the clip of the split that is
nearest to its centroid: it takes shards of `multimodal clips encode --keep-features` and those with the films.

example:
  multimodal clips continue runs/videobert data/films-ids --given 8 --steps 3 --top 3 --to next.jsonl \\
      --page next.html --films data/films --tokenizer runs/clusters
"""
AT_ONCE = 64


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    add_model_options(parser)
    parser.add_argument(
        "--given", type=int, default=8, metavar="N", help="clips of a film that are seen, from its start (default: %(default)s)"
    )
    parser.add_argument("--words", metavar="TEXT", help="what is said; default: nothing is")
    parser.add_argument("--captions", action="store_true", help="what is said is what the captions say")
    parser.add_argument("--steps", type=int, default=3, metavar="N", help="clips to find, one after the other (default: %(default)s)")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="clips to tell of each step (default: %(default)s)")
    parser.add_argument("--most", type=int, metavar="N", help="films, the first so many (default: all)")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE.jsonl", help="file to write")
    page = parser.add_argument_group("a page with pictures")
    page.add_argument("--page", type=Path, metavar="FILE.html", help="also write it")
    page.add_argument("--films", metavar="SHARDS", help="shards of the films that the clips were cut from")
    page.add_argument("--tokenizer", metavar="TOKENIZER", help="folder that `multimodal clips cluster` wrote")
    page.add_argument("--height", type=int, default=120, metavar="PIXELS", help="of a picture (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Run it and return the exit code."""
    _check(options)
    from rich.console import Console

    from multimodal.clips.continuation_page import as_line
    from multimodal.clips.films import stretches_of

    model, source = opened(options)
    stretches = (stretch for stretch, _ in stretches_of(source, options.split, model.transform, options.spans))
    long_enough = (stretch for stretch in stretches if len(stretch.clips) >= max(1, options.given))
    found = [film for block in in_blocks(islice(long_enough, options.most), AT_ONCE) for film in _continued(options, model, block)]
    if not found:
        raise ValueError(f"split {options.split!r} has no film with {options.given} clips.")
    said = f"{write_lines(options.to, map(as_line, found)):,} films, {options.steps} clips each: {options.to}"
    if options.page:
        _write_page(options, source, found)
        said += f", {options.page}"
    Console().print(said, markup=False, highlight=False, soft_wrap=True)
    return 0


def _check(options: argparse.Namespace) -> None:
    check_counts(options, "steps", "top", "height", *(["most"] if options.most is not None else []))
    check_file(options.to)
    if options.given < 0 or (options.given == 0 and options.words is None and not options.captions):
        raise ValueError(f"--given must be at least 1, or 0 with --words or --captions; got {options.given}.")
    if options.words is not None and options.captions:
        raise ValueError("--words and --captions both say what is said: give one.")
    if options.page is None and (options.films or options.tokenizer):
        raise ValueError("--films and --tokenizer have an effect only with --page.")
    if options.page is not None:
        check_file(options.page)
        if not (options.films and options.tokenizer):
            raise ValueError("--page needs --films and --tokenizer.")


def _continued(options: argparse.Namespace, model: FilmModel, block: Sequence[Stretch]) -> list[Continuation]:
    from multimodal.clips.continuation import continued
    from multimodal.clips.continuation_page import Continuation

    texts = [options.words or (stretch.text if options.captions else "") for stretch in block]
    words = [model.vocabulary.encode_text(text)[: model.transform.max_tokens // 2] if text else None for text in texts]
    steps = continued(model, [stretch.clips[: options.given] for stretch in block], words, options.steps, options.top)
    offset = model.vocabulary.clip_offset
    return [
        Continuation(
            stretch.name,
            text,
            (stretch.clips[: options.given] - offset).tolist(),
            own,
            (stretch.clips[options.given : options.given + options.steps] - offset).tolist(),
        )
        for stretch, text, own in zip(block, texts, steps, strict=True)
    ]


def _write_page(options: argparse.Namespace, source: ShardIndex, found: Sequence[Continuation]) -> None:
    from multimodal.atomic import atomic_file
    from multimodal.clips.continuation_page import continuation_page
    from multimodal.clips.encode import cached_tokenizer
    from multimodal.clips.examples import pictures_of_examples, use_of_clusters
    from multimodal.clips.recipe import SAID, windows_of
    from multimodal.datamodules.streaming.locations import open_source

    films = open_source(options.films)
    use = use_of_clusters(source, options.split, cached_tokenizer(options.tokenizer, "cpu"), 1)
    clusters = sorted({clip for film in found for clip in film.shown})
    examples = [use.nearest[clip][0] for clip in clusters if use.nearest.get(clip)]
    pictures = pictures_of_examples(examples, films, windows_of(source.writer.get(SAID) or {}), options.height)
    options.page.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(options.page) as file:
        file.write(continuation_page(f"Next clips: {options.split}", found, use, pictures).encode())
