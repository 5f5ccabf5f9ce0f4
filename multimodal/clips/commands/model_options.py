"""What the commands that ask a pretrained model of words and clips have in common."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

Thing = TypeVar("Thing")

if TYPE_CHECKING:
    from multimodal.clips.film_model import FilmModel
    from multimodal.datamodules.shards.index import ShardIndex


def add_model_options(parser: argparse.ArgumentParser, spans: bool = True, several: bool = False) -> None:
    """Add the run, the shards and how they are read.

    Args:
        parser: of the command.
        spans: whether films may be taken sentence by sentence.
        several: whether several splits may be named.
    """
    parser.add_argument("run_folder", metavar="RUN", help="run of `multimodal fit` that pretrained on words and clips (VideoBERT)")
    parser.add_argument("source", metavar="SHARDS", help="shards with ids of clips, and captions where the films have any")
    if several:
        parser.add_argument("--split", nargs="+", default=["test"], metavar="NAME", help="(default: test)")
    else:
        parser.add_argument("--split", default="test", metavar="NAME", help="(default: %(default)s)")
    if spans:
        parser.add_argument("--spans", action="store_true", help="take the part of a film in which a sentence is said, not the whole film")
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda", help="where the encoder runs (default: %(default)s)")


def opened(options: argparse.Namespace) -> tuple[FilmModel, ShardIndex]:
    """Return the model and the shards.

    Raises:
        ValueError: the run holds no such model, the shards no clips or no such split.
    """
    from multimodal.clips.film_model import FilmModel
    from multimodal.datamodules.streaming.locations import open_source
    from multimodal.tokenizers.clip_file import FIELD

    source = open_source(options.source)
    if FIELD not in source.fields:
        raise ValueError(f"{options.source} holds no {FIELD}: write the ids with `multimodal clips encode`.")
    wanted = [options.split] if isinstance(options.split, str) else options.split
    if missing := [split for split in wanted if not source.splits.get(split)]:
        raise ValueError(f"{options.source} has no split {missing[0]!r}; splits there: {', '.join(source.splits)}.")
    return FilmModel.from_run(options.run_folder, options.device), source


def check_file(path: Path) -> None:
    """Refuse a folder as the file to write.

    Raises:
        ValueError: it is one.
    """
    if path.is_dir():
        raise ValueError(f"--to {path} is a folder: name a file.")


def check_counts(options: argparse.Namespace, *names: str) -> None:
    """Refuse options below 1.

    Raises:
        ValueError: one is.
    """
    for name in names:
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}.")


def write_lines(path: Path, lines: Iterable[Mapping[str, object]]) -> int:
    """Write lines of JSON, and return how many; the file appears when it is whole."""
    import json

    from multimodal.atomic import atomic_file

    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        for line in lines:
            file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
            count += 1
    return count


def in_blocks(things: Iterable[Thing], size: int) -> Iterator[list[Thing]]:
    """Yield so many at a time."""
    block: list[Thing] = []
    for thing in things:
        block.append(thing)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block
