"""``multimodal clips encode``: give clips the ids of their clusters."""

from __future__ import annotations

import argparse
from pathlib import Path

from multimodal.datamodules.commands.outcome import print_outcome
from multimodal.datamodules.commands.workers import add_run_options, who_works

SUMMARY = "give clips the ids of their clusters"
DESCRIPTION = "Write the shards of `multimodal clips features` anew, with an id of each clip in place of its feature."
EPILOG = """\
The new shards have the names, keys, order and fields of the old ones; KEY.clips.safetensors holds starts, ends and ids, and with
--keep-features the features too. Ids of clusters of another extractor's features are refused. After an interruption, run the same command
again: finished shards are kept.

example:
  multimodal clips encode data/films-features --tokenizer runs/clusters --to data/films-ids
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("source", metavar="DIR", help="shards with features of clips")
    parser.add_argument("--tokenizer", required=True, metavar="TOKENIZER", help="folder that `multimodal clips cluster` wrote")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR2", help="folder for the new shards; made if it is not there")
    parser.add_argument("--keep-features", action="store_true", help="keep the features beside the ids, for `multimodal clips show`")
    parser.add_argument("--overwrite", action="store_true", help="replace other shards in DIR2")
    group = parser.add_argument_group("who does the work")
    group.add_argument("--device", default="cpu", metavar="cpu|cuda", help="where distances are computed (default: %(default)s)")
    add_run_options(group, "0 with cuda")


def run(options: argparse.Namespace) -> int:
    """Run it and return the exit code."""
    if options.to.exists() and not options.to.is_dir():
        raise ValueError(f"--to {options.to} is not a folder.")
    from rich.console import Console

    from multimodal.clips.encode import EncodeOptions, write_clip_ids
    from multimodal.clips.feature_stream import source_of_clips
    from multimodal.clips.recipe import SAID
    from multimodal.datamodules.commands.progress import ProgressBar

    source = source_of_clips(options.source)
    who, films = who_works(options, [shard for shards in source.splits.values() for shard in shards], decodes=False)
    how = EncodeOptions(options.tokenizer, options.keep_features, options.device)
    with ProgressBar("encoding clips", films, Console(stderr=True)) as progress:
        result = write_clip_ids(source, options.to, how, who, progress.advance)
    said = {} if result.index is None else result.index.writer[SAID]
    about = f"ids of clips: {said['vocab_size']:,} clusters, fingerprint {said['tokenizer'][:12]}" if said else ""
    print_outcome(result, "ids", Console(), about)
    return 0
