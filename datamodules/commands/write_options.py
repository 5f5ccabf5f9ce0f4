"""The options of ``multimodal shards write``, and the settings that they stand for."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from multimodal.datamodules.commands.workers import add_run_options

if TYPE_CHECKING:
    from multimodal.datamodules.writing.sources import Scan, SourceRules, SplitRule
    from multimodal.datamodules.writing.writer import WriteOptions

DEFAULT_SPLIT = "train=0.9,val=0.1"
EPILOG = r"""
SRC is one of these; --source forces one:

folder          files with the same path up to the extension are one sample, one field each; the first sub-folder is the label
  files/cat/001.png files/cat/001.txt        key cat/001, fields png and txt, label cat
  multimodal shards write files --to data/files --split train=0.8,val=0.1,test=0.1

  The first level may say what kind of file lies there: photos/cat/001.png and sounds/cat/001.wav are one sample.
  multimodal shards write recordings --to data/recordings --merge-folders

  A rule for names of your own: 001_fr.ogg and 001_de.ogg are fields fr.ogg and de.ogg of sample 001.
  multimodal shards write files --to data/files --field-pattern '(?P<key>.+)_(?P<field>[a-z]{2}\.ogg)'

manifest        CSV, TSV, JSON lines or Parquet, one sample a row: paths become fields, other columns the metadata
  multimodal shards write list.csv --to data/list --root /data/files --label-column species --text-columns caption

  Several labels of a sample: dog|rain in a cell, or a list in JSON lines and Parquet.
  multimodal shards write list.csv --to data/list --labels-column events

huggingface     a folder that save_to_disk of a Hugging Face data set wrote; its splits stay
  multimodal shards write saved --to data/saved --text-columns caption

tars            tars as webdataset writes them, to be cut anew; the splits of an index stay
  multimodal shards write 'old/shard-{000..099}.tar' --to data/new --shard-size 256MB --label-column cls

Large jobs: --workers for the processes of a machine; --part 1/4 to --part 4/4 on four machines that share DIR; --engine ray on a cluster.
The same files give the same bytes. After an interruption, run the same command again: finished shards are kept. When all is written
already, the command says so and ends; shards of other files or settings are replaced only with --overwrite.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all options to the parser of the command."""
    parser.add_argument("source", nargs="+", metavar="SRC", help="a folder of files, a manifest, a saved data set, or tars")
    parser.add_argument("--to", required=True, metavar="DIR", help="folder for the shards; made if it is not there")
    parser.add_argument("--overwrite", action="store_true", help="replace shards in DIR that were written from other files or settings")
    parser.add_argument(
        "--on-error",
        choices=["raise", "skip"],
        default="raise",
        help="stop at a file that cannot be used, or leave it out and list it (default: %(default)s)",
    )
    _add_source_options(parser.add_argument_group("what is read"))
    _add_split_options(parser.add_argument_group("splits and duplicates"))
    _add_shard_options(parser.add_argument_group("shards and processes"))


def _add_source_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--source", dest="kind", choices=["folder", "manifest", "huggingface", "tars"], help="what SRC is (default: found out)"
    )
    group.add_argument("--extensions", metavar="A,B", help="files to take (default: every file with an extension that is not hidden)")
    group.add_argument("--require", metavar="A,B", help="fields that each sample must have; samples without them are left out")
    group.add_argument("--merge-folders", action="store_true", help="files with the same path below the first level are one sample")
    group.add_argument(
        "--field-pattern",
        action="append",
        default=[],
        metavar="REGEX",
        help="groups 'key' and 'field' say what a file is, by its whole path in SRC; may be given several times",
    )
    group.add_argument("--root", metavar="DIR", help="folder that the paths of a manifest are relative to (default: that of the manifest)")
    group.add_argument("--key-column", metavar="NAME", help="column of the keys; 'row': their number (default: 'key', else the first path)")
    group.add_argument("--label-column", metavar="NAME", help="column of the labels, or a field or entry of tars (default: 'label')")
    group.add_argument("--labels-column", metavar="NAME", help="column of labels of which a sample may have several: a list, or a text")
    group.add_argument("--labels-separator", metavar="TEXT", help="between the labels of such a text (default: '|')")
    group.add_argument("--split-column", metavar="NAME", help="column of the splits")
    group.add_argument("--text-columns", metavar="A,B", help="columns that become fields 'txt'")
    group.add_argument("--path-columns", metavar="A,B", help="columns of paths (default: those that name files)")


def _add_split_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--split",
        metavar="NAME=SHARE,...",
        help=f"by a hash; or 'folders' if SRC holds only train/, val/, test/ (default: as in SRC, else {DEFAULT_SPLIT})",
    )
    group.add_argument(
        "--split-by",
        default="key",
        metavar="WHAT",
        help="what is hashed; samples that share it stay together: 'key', a regular expression with one group, searched in the key, "
        "or 'column:NAME', an entry of the metadata (default: %(default)s)",
    )
    group.add_argument("--deduplicate", action="store_true", help="leave out samples whose data are byte for byte those of another one")


def _add_shard_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--samples-per-shard", type=int, metavar="N", help="samples of a shard (default: 1000, without --shard-size)")
    group.add_argument("--shard-size", metavar="SIZE", help="about how large a shard is, as in 256MB")
    add_run_options(group, "this one for less than 100 MB")


def source_rules(options: argparse.Namespace) -> SourceRules:
    """Return how the source is read."""
    from multimodal.datamodules.writing.sources import Columns, FolderRules, SourceRules

    columns = Columns(
        key=options.key_column,
        label=options.label_column,
        labels=options.labels_column,
        separator=_separator(options),
        split=options.split_column,
        paths=_names(options.path_columns),
        texts=_names(options.text_columns) or (),
    )
    folder = FolderRules(
        split_folders=options.split == "folders",
        merge_folders=options.merge_folders,
        field_patterns=tuple(options.field_pattern),
        extensions=_names(options.extensions),
    )
    return SourceRules(folder, columns, _names(options.require) or (), options.root, options.on_error)


def _separator(options: argparse.Namespace) -> str:
    """Return what stands between the labels of a text.

    Raises:
        ValueError: it is empty, or there is no column of labels.
    """
    if options.labels_separator is None:
        return "|"
    if options.labels_column is None:
        raise ValueError("--labels-separator has no effect without --labels-column: name the column too.")
    if not options.labels_separator:
        raise ValueError("--labels-separator is empty: give what stands between the labels.")
    return str(options.labels_separator)


def _names(argument: str | None) -> list[str] | None:
    return None if argument is None else [name.strip() for name in argument.split(",")]


def write_options(options: argparse.Namespace) -> WriteOptions:
    """Return how shards are written; the number of workers is 0 where none was asked for.

    Raises:
        ValueError: a limit, a number of processes or a part that cannot be.
    """
    from multimodal.datamodules.jobs.parts import Part
    from multimodal.datamodules.writing.write_plan import DEFAULT_SAMPLES_PER_SHARD, ShardLimits, parse_size
    from multimodal.datamodules.writing.writer import WriteOptions

    if options.workers is not None and options.workers < 0:
        raise ValueError(f"--workers must be at least 0, got {options.workers}.")
    size = None if options.shard_size is None else parse_size(options.shard_size)
    samples = options.samples_per_shard
    limits = ShardLimits(DEFAULT_SAMPLES_PER_SHARD if samples is None and size is None else samples, size)
    names = ("split", "split_by", "extensions", "deduplicate", "on_error", "require", "merge_folders", "field_pattern", "text_columns")
    settings = {name: getattr(options, name) for name in names if getattr(options, name) not in (None, False, [])}
    settings |= {"samples_per_shard": limits.samples} | ({} if size is None else {"shard_bytes": size})
    return WriteOptions(limits, options.on_error, options.workers or 0, options.engine, Part.parse(options.part), settings)


def split_rule(options: argparse.Namespace, scan: Scan) -> SplitRule:
    """Return how the samples of a scan are spread over splits.

    Raises:
        ValueError: shares that do not add up, or settings that exclude each other.
    """
    from multimodal.datamodules.shards.keys import parse_fractions
    from multimodal.datamodules.writing.sources import SplitRule

    if options.split is not None and options.split_column is not None:
        raise ValueError("--split and --split-column both say what the splits are: give one of them.")
    own = options.split == "folders" or (options.split is None and bool(scan.splits))
    return SplitRule(None if own else parse_fractions(options.split or DEFAULT_SPLIT), options.split_by)
