"""``multimodal clips caption-features``: a vector of each film for a captioner."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from multimodal.clips.commands.model_options import add_model_options, in_blocks, opened

if TYPE_CHECKING:
    from multimodal.clips.film_model import FilmModel
    from multimodal.datamodules.shards.index import ShardIndex

SUMMARY = "write a vector of each film, or of each sentence's part of it, for a captioner (VideoBERT)"
DESCRIPTION = "Write, for every film, the mean output of the encoder at its clips beside that at the masks of a template before them."
EPILOG = """\
DIR gets SPLIT.npy, a row of twice the encoder's width for each film, and SPLIT.keys.txt. With --samples, each film or part also becomes
files of one name in FOLDER/SPLIT: features.npy, its clips and the words that are said (txt), which `multimodal shards write` packs:

example:
  multimodal clips caption-features runs/videobert data/films-ids --spans --split train val test --to data/vectors --samples data/parts
  multimodal shards write data/parts --split folders --field-pattern '(?P<key>[^.]+)[.](?P<field>.+)' --to data/captions
"""
AT_ONCE = 64


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    add_model_options(parser, several=True)
    parser.add_argument("--template", metavar="TEXT", help="sentence with [MASK] (default: VideoBERT's, of five)")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder for the vectors; made if it is not there")
    parser.add_argument("--samples", type=Path, metavar="FOLDER", help="also write the files that a captioner learns from")


def run(options: argparse.Namespace) -> int:
    """Run it and return the exit code."""
    for name in ("to", "samples"):
        if (folder := getattr(options, name)) is not None and folder.exists() and not folder.is_dir():
            raise ValueError(f"--{name} {folder} is not a folder.")
    model, source = opened(options)
    for split in options.split:
        _write(options, model, source, split)
    return 0


def _write(options: argparse.Namespace, model: FilmModel, source: ShardIndex, split: str) -> None:
    import numpy as np
    import torch
    from rich.console import Console

    from multimodal.atomic import atomic_file
    from multimodal.clips.caption_features import TEMPLATE, caption_features, write_sample
    from multimodal.clips.films import stretches_of
    from multimodal.datamodules.commands.progress import ProgressBar

    rows, names = [], []
    with ProgressBar("reading films", source.num_samples(split), Console(stderr=True)) as progress:
        for block in in_blocks(stretches_of(source, split, model.transform, options.spans), AT_ONCE):
            features = caption_features(model, [stretch for stretch, _ in block], options.template or TEMPLATE)
            rows.append(features)
            names += [stretch.name for stretch, _ in block]
            for (stretch, raw), own in zip(block, features, strict=True):
                if options.samples:
                    write_sample(options.samples / split, stretch, raw, own)
            progress.advance(len({raw.key for _, raw in block}))
    if not rows:
        raise ValueError(f"split {split!r} has no {'sentence with clips' if options.spans else 'clips'}.")
    options.to.mkdir(parents=True, exist_ok=True)
    array = torch.cat(rows).numpy()
    with atomic_file(options.to / f"{split}.npy") as file:
        np.save(file, array, allow_pickle=False)
    with atomic_file(options.to / f"{split}.keys.txt") as file:
        file.write("".join(f"{name}\n" for name in names).encode())
    where = f"; files in {options.samples / split}" if options.samples else ""
    said = f"{options.to / split}.npy: {array.shape[0]} x {array.shape[1]} float32{where}"
    Console().print(said, markup=False, highlight=False, soft_wrap=True)
