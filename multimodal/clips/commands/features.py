"""``multimodal clips features``: cut films into clips and store a feature of each."""

from __future__ import annotations

import argparse
from pathlib import Path

from multimodal.datamodules.commands.outcome import print_outcome
from multimodal.datamodules.commands.workers import add_run_options, who_works

SUMMARY = "cut films into clips and store a feature of each"
DESCRIPTION = "Cut the films of shards into clips, and write new shards that hold a feature of each clip."
EPILOG = """\
The config names two parts, each with class_path and init_args:
  windows:    how films are cut, how many pictures a second a clip has, and how they are resized (ClipWindows)
  extractor:  what makes a feature of a clip (S3DExtractor, EncoderExtractor, PictureExtractor)

The new shards have the names, keys and order of the old ones, and their fields but for the films (--keep keeps these too). Each film's
clips are one file, KEY.clips.safetensors: starts and ends in seconds, and features. A film is decoded once, from beginning to end; its
file and a few clips are held in memory. After an interruption, run the same command again: finished shards are kept.

With --device cuda one process both decodes and computes; --workers 4 lets four do so, which share the device.

example:
  multimodal clips features data/films --config configs/clips/s3d.yaml --to data/films-features --on-error skip
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("source", metavar="SHARDS", help="folder of shards with an index.json")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="YAML file with windows and extractor")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder for the new shards; made if it is not there")
    parser.add_argument("--precision", choices=["float16", "float32"], default="float16", help="of the features (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep the films in the new shards")
    parser.add_argument("--overwrite", action="store_true", help="replace other shards in DIR")
    parser.add_argument(
        "--on-error",
        choices=["raise", "skip"],
        default="raise",
        help="stop at a film that cannot be read, or write it without clips and list it (default: %(default)s)",
    )
    group = parser.add_argument_group("who does the work")
    group.add_argument("--batch-size", type=int, default=8, metavar="N", help="clips of a film at once (default: %(default)s)")
    group.add_argument("--device", default="cpu", metavar="cpu|cuda", help="where the extractor runs (default: %(default)s)")
    add_run_options(group, "0 with cuda")


def run(options: argparse.Namespace) -> int:
    """Run it and return the exit code."""
    if options.to.exists() and not options.to.is_dir():
        raise ValueError(f"--to {options.to} is not a folder.")
    from rich.console import Console

    from multimodal.clips.features import FeatureOptions, write_clip_features
    from multimodal.clips.recipe import SAID, ClipRecipe
    from multimodal.datamodules.commands.progress import ProgressBar
    from multimodal.datamodules.streaming.locations import open_source

    recipe = ClipRecipe.from_file(options.config)
    how = FeatureOptions(options.precision, options.keep, options.batch_size, options.device, options.on_error)
    source = open_source(options.source)
    who, films = who_works(options, [shard for shards in source.splits.values() for shard in shards], decodes=True)
    with ProgressBar("cutting films", films, Console(stderr=True)) as progress:
        result = write_clip_features(source, options.to, recipe, how, who, progress.advance)
    said = {} if result.index is None else result.index.writer[SAID]
    about = f"clips: {said['extractor_class']}, {said['dim']} numbers each, fingerprint {said['extractor'][:12]}" if said else ""
    print_outcome(result, "clips", Console(), about)
    return 0
