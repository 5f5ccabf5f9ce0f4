"""``multimodal features`` and ``multimodal probe``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from multimodal.command_group import OneLineParser, run_command
from multimodal.datamodules.commands.outcome import print_outcome
from multimodal.datamodules.commands.workers import add_run_options, who_works

if TYPE_CHECKING:
    from rich.console import Console

    from multimodal.features.reader import FeatureSettings


def features_main(arguments: list[str]) -> int:
    """Run ``multimodal features`` and return its exit code."""
    return run_command(_features_parser(), arguments, _features)


def probe_main(arguments: list[str]) -> int:
    """Run ``multimodal probe`` and return its exit code."""
    return run_command(_probe_parser(), arguments, _probe)


def _features_parser() -> OneLineParser:
    parser = OneLineParser(
        "multimodal features",
        description="Read features of every sample of labelled or unlabelled shards from a model, nothing hidden, and write them as files.",
        epilog="--format npy: SPLIT.npy (rows in the order of the shards, to be mapped into memory), SPLIT.keys.txt, SPLIT.labels.npy and "
        "classes.txt. --format shards: shards of the same names, keys and order, with KEY.features.npy beside the metadata; after an "
        "interruption, run the same command again: finished shards are kept.",
    )
    _add_model(parser)
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write into; made if it is not there")
    parser.add_argument("--format", choices=["npy", "shards"], default="npy", help="(default: %(default)s)")
    parser.add_argument("--layer", default="out", metavar="N", help="number from 0, -1: the last; out: the output (default: %(default)s)")
    parser.add_argument(
        "--pool",
        choices=["mean", "class", "class_and_mean", "none"],
        default="mean",
        help="mean of the tokens, class token, both side by side, or none: all tokens of an item (default: %(default)s)",
    )
    parser.add_argument("--split", nargs="+", default=[], metavar="NAME", help="(default: all)")
    parser.add_argument("--precision", choices=["float16", "float32"], default="float32", help="of what is stored (default: %(default)s)")
    shards = parser.add_argument_group("of --format shards")
    shards.add_argument("--keep", action="store_true", help="keep all fields of a sample beside its features, not only the metadata")
    shards.add_argument("--overwrite", action="store_true", help="replace other shards in DIR")
    add_run_options(shards, "0 with cuda")
    return parser


def _probe_parser() -> OneLineParser:
    parser = OneLineParser(
        "multimodal probe",
        description="Tell how much of the label of shards can be read from the features of a model, without training it.",
        epilog="k-nearest neighbours and logistic regression on standardised features; k, the decay and the best layer are chosen by "
        "cross-validation within the labelled items, never on the test split. Draws of labelled items are the same for every model. "
        "Features of both splits are kept in memory, 4 bytes for each number, of all layers at once.",
    )
    _add_model(parser)
    parser.add_argument("--layers", nargs="+", default=["out"], metavar="N", help="numbers from 0, out, or all (default: out)")
    parser.add_argument(
        "--pool", choices=["mean", "class", "class_and_mean"], default="mean", help="what is read of an item (default: %(default)s)"
    )
    parser.add_argument(
        "--labels-per-class", nargs="+", type=int, default=[10, 100], metavar="N", help="0: all (default: 10 100)", dest="labels"
    )
    parser.add_argument("--draws", type=int, default=5, metavar="N", help="draws of the labelled items (default: %(default)s)")
    parser.add_argument("--train-split", default="train", metavar="NAME", help="has the labelled items (default: %(default)s)")
    parser.add_argument("--test-split", default="test", metavar="NAME", help="is scored (default: %(default)s)")
    parser.add_argument("--to", type=Path, metavar="FILE", help="also write the results, as .json or .csv")
    parser.add_argument("--compare", type=Path, metavar="FILE", help=".json of another model: paired bootstrap over the test items")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="reading processes (default: %(default)s)")
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="saved model, run of `multimodal fit`, or a foreign checkpoint")
    parser.add_argument("shards", metavar="SHARDS", help="folder of shards with an index.json")
    parser.add_argument("--modality", metavar="NAME", help="its name in the model (default: the only one)")
    parser.add_argument("--transform", metavar="FILE", help="YAML file that says how files are read (default: as the model says)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="items encoded at once (default: %(default)s)")
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda", help="where the encoder runs (default: %(default)s)")
    parser.add_argument(
        "--on-error",
        choices=["raise", "skip"],
        default="raise",
        help="stop at a sample that cannot be decoded, or leave it out and count it (default: %(default)s)",
    )


def _settings(options: argparse.Namespace, layers: list[str]) -> FeatureSettings:
    from multimodal.features.reader import FeatureSettings
    from multimodal.training.layer_features import parse_layers

    named = parse_layers(layers)
    chosen = named if named == "all" else tuple(named)
    return FeatureSettings(options.model, options.modality, chosen, options.pool, options.transform, options.device)


def _features(options: argparse.Namespace) -> None:
    from rich.console import Console

    if options.layer == "all":
        raise ValueError("--layer: features are written of one layer.")
    if options.to.exists() and not options.to.is_dir():
        raise ValueError(f"--to {options.to} is not a folder.")
    if options.format == "shards":
        return _feature_shards(options, Console())
    unused = [name for name in ("keep", "overwrite", "workers", "part") if getattr(options, name) not in (False, None, "1/1")]
    if set(unused) - {"workers"}:
        raise ValueError(f"--{unused[0]} has an effect only with --format shards.")
    _feature_arrays(options, Console())


def _feature_shards(options: argparse.Namespace, console: Console) -> None:
    from rich.console import Console

    from multimodal.datamodules.commands.progress import ProgressBar
    from multimodal.datamodules.streaming.locations import open_source
    from multimodal.features.shards import FeatureShardSettings, chosen_splits, write_feature_shards

    source = open_source(options.shards)
    settings = FeatureShardSettings(
        _settings(options, [options.layer]), options.precision, options.keep, options.batch_size, options.on_error
    )
    shards = [shard for split in chosen_splits(source, options.split) for shard in source.splits[split]]
    how, samples = who_works(options, shards, decodes=True)
    with ProgressBar("reading features", samples, Console(stderr=True)) as progress:
        result = write_feature_shards(source, options.to, settings, options.split, how, progress.advance)
    print_outcome(result, "features", console)


def _feature_arrays(options: argparse.Namespace, console: Console) -> None:
    from rich.console import Console

    from multimodal.datamodules.commands.progress import ProgressBar
    from multimodal.features.array_file import write_feature_array
    from multimodal.features.reader import FeatureReader, ReadOptions, shard_batches

    reader = FeatureReader(_settings(options, [options.layer]))
    data = shard_batches(reader, [options.shards], ReadOptions(options.batch_size, options.workers or 0, options.on_error))
    splits = options.split or [name for name, shards in data.sources[0].splits.items() if shards]
    samples = sum(source.num_samples(split) for source in data.sources for split in splits)
    with ProgressBar("reading features", samples, Console(stderr=True)) as progress:
        written = [write_feature_array(reader, data, split, options.to, options.precision, progress.advance) for split in splits]
    for array in written:
        left_out = f"; {array.left_out:,} samples left out" if array.left_out else ""
        console.print(f"{array.path}: {' x '.join(map(str, array.shape))} {options.precision}{left_out}", soft_wrap=True, highlight=False)


def _probe(options: argparse.Namespace) -> None:
    from rich.console import Console

    from multimodal.features.probe_report import ProbeReport, compare
    from multimodal.features.probe_run import probe_shards
    from multimodal.features.reader import FeatureReader, ReadOptions, shard_batches
    from multimodal.training.probing import ProbeOptions

    if options.to is not None and options.to.suffix not in (".json", ".csv"):
        raise ValueError(f"--to must end in .json or .csv, got {options.to}.")
    other = None if options.compare is None else ProbeReport.load(options.compare)
    how = ProbeOptions(tuple(options.labels), options.draws)
    reader = FeatureReader(_settings(options, options.layers))
    data = shard_batches(reader, [options.shards], ReadOptions(options.batch_size, options.workers, options.on_error))
    report = probe_shards(reader, data, options.train_split, options.test_split, how, Console(stderr=True))
    console = Console()
    console.print(report.table())
    console.print(report.summary(), highlight=False, soft_wrap=True)
    if other is not None:
        console.print(compare(report, other))
    if options.to is not None:
        report.save(options.to)
        console.print(f"{options.to}", highlight=False, soft_wrap=True)
