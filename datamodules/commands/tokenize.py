"""``multimodal shards tokenize``: store the ids of a frozen tokenizer beside the data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from multimodal.datamodules.commands.outcome import print_outcome
from multimodal.datamodules.commands.workers import add_run_options, who_works

if TYPE_CHECKING:
    from multimodal.datamodules.shards.index import StoredIds
    from multimodal.datamodules.tokenizing.tokenized_shard import TokenizeSettings
    from multimodal.datamodules.tokenizing.tokenizer_recipe import TokenizerRecipe

SUMMARY = "store the ids of a frozen tokenizer beside the data"
DESCRIPTION = "Run a frozen tokenizer over shards once, and write new shards that hold its ids too."
EPILOG = """\
The new shards have the names, keys and order of the old ones, all their fields, and one field MODALITY.VIEW.ids.npy for each view. Training
on them makes the same views again and runs no tokenizer. It refuses ids of another tokenizer or transform than its own.

With --crops 4 a sample has four views: the fifth epoch shows the first again. After an interruption, run the same command again: finished
shards are kept. A second modality is tokenized from the shards that this command wrote for the first.

examples:
  multimodal shards tokenize data/photos --to data/photos-ids --modality photo --config configs/pretrain/photos.yaml --crops 4
  multimodal shards tokenize data/photos --to data/photos-ids --modality photo --tokenizer runs/tokenizer/tokenizer --transform photos.yaml
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("source", metavar="SRC", help="folder of shards with an index.json")
    parser.add_argument("--to", required=True, metavar="DIR", help="folder for the new shards; made if it is not there")
    parser.add_argument("--modality", required=True, metavar="NAME", help="name of the modality, as in the config of the pretraining")
    parser.add_argument("--drop-fields", default="", metavar="A,B", help="fields that the new shards leave out (default: none)")
    parser.add_argument("--overwrite", action="store_true", help="replace other shards in DIR")
    parser.add_argument(
        "--on-error",
        choices=["raise", "skip"],
        default="raise",
        help="stop at a sample that cannot be decoded, or write it without ids and list it (default: %(default)s)",
    )
    _add_tokenizer_options(parser.add_argument_group("what makes the ids"))
    _add_view_options(parser.add_argument_group("which views of a sample get ids"))
    _add_work_options(parser.add_argument_group("who does the work"))


def _add_tokenizer_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--config", metavar="FILE", help="config of the pretraining: names transform and tokenizer")
    group.add_argument("--transform", metavar="FILE", help="YAML file of the transform, in place of --config")
    group.add_argument("--tokenizer", metavar="DIR", help="folder of a saved tokenizer (default: the config's, else the transform's own)")


def _add_view_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--crops", type=int, default=1, metavar="K", help="views of each training sample (default: %(default)s)")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of the views (default: %(default)s)")
    group.add_argument(
        "--train-splits",
        default="train",
        metavar="A,B",
        help="splits whose views are those of training; '' for none; others get the one view of evaluation (default: %(default)s)",
    )


def _add_work_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--batch-size", type=int, default=64, metavar="N", help="views tokenized at once (default: %(default)s)")
    group.add_argument("--device", default="cpu", metavar="cpu|cuda", help="where the tokenizer runs (default: %(default)s)")
    add_run_options(group, "0 with cuda")


def run(options: argparse.Namespace) -> int:
    """Run it and return the exit code."""
    from rich.console import Console

    from multimodal.datamodules.commands.progress import ProgressBar
    from multimodal.datamodules.streaming.locations import open_source
    from multimodal.datamodules.tokenizing.tokenize import tokenize_shards

    if Path(options.to).exists() and not Path(options.to).is_dir():
        raise ValueError(f"--to {options.to} is not a folder.")
    recipe, settings = _recipe(options), _settings(options)
    source = open_source(options.source)
    how, samples = who_works(options, [shard for shards in source.splits.values() for shard in shards], decodes=True)
    with ProgressBar("tokenizing", samples, Console(stderr=True)) as progress:
        result = tokenize_shards(source, options.to, recipe, settings, how, progress.advance)
    about = "" if result.index is None else _summary(result.index.ids[settings.name], settings.name)
    print_outcome(result, "ids", Console(), about)
    return 0


def _settings(options: argparse.Namespace) -> TokenizeSettings:
    from multimodal.datamodules.tokenizing.tokenized_shard import TokenizeSettings

    return TokenizeSettings(
        name=options.modality,
        crops=options.crops,
        seed=options.seed,
        train_splits=_names(options.train_splits),
        batch_size=options.batch_size,
        device=options.device,
        drop_fields=_names(options.drop_fields),
        on_error=options.on_error,
    )


def _recipe(options: argparse.Namespace) -> TokenizerRecipe:
    from multimodal.datamodules.tokenizing.tokenizer_recipe import TokenizerRecipe

    if (options.config is None) == (options.transform is None):
        raise ValueError("name the transform by --config FILE (of the pretraining) or by --transform FILE, one of the two.")
    if options.config is not None:
        return TokenizerRecipe.from_config(options.config, options.modality, options.tokenizer)
    return TokenizerRecipe.from_files(options.transform, options.tokenizer)


def _names(argument: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in argument.split(",") if name.strip())


def _summary(stored: StoredIds, name: str) -> str:
    views = f"{stored.crops} view{'s' if stored.crops > 1 else ''} of each sample in {', '.join(stored.train)}; " if stored.train else ""
    made = f"{stored.tokenizer_class.rpartition('.')[2]}, fingerprint {stored.tokenizer[:12]}, vocabularies {list(stored.vocab_sizes)}"
    return f"ids of {name}: {made}; {views}the view of evaluation elsewhere"
