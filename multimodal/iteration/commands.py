"""``multimodal tokenizers``: what makes tokenizers in more than one step, and vocabularies of texts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from multimodal.iteration.scores import RoundScores

STAGES = {
    "tokenizer": "the tokenizer",
    "ids": "its ids, stored beside the data",
    "model": "an encoder that predicts them",
    "classifier": "fine-tuning, for the teacher of the next round",
}
EPILOG = """\
The config names a modality and recipes, by paths relative to it:
  modality: audio                                   # in the recipe of the pretraining
  pretrain: ../pretrain/beats_sounds.yaml           # its tokenizer is that of the first round
  tokenizer: ../tokenizer/beats_sounds.yaml         # learns from the encoder of the round before (EncoderTeacher)
  crops: 4                                          # views of a sample with stored ids; 0: none, the tokenizer runs in training
  run: runs/beats_sounds_rounds
and optionally finetune (a recipe) and supervised_from (a round): from then on the teacher is fine-tuned first, and gives its logits.

Round N makes RUN/round_N/tokenizer/tokenizer and RUN/round_N/model; RUN/lineage.json says what was made from what. After an interruption,
run the same command again: it goes on within the stage that was stopped, and ends in the same files. More rounds can be added later.

example:
  multimodal tokenizers iterate --config configs/iterate/beats_sounds.yaml --rounds 3
"""


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code: 0; 1 or the code of a stage that failed; 2 for a mistake in the config."""
    parser = argparse.ArgumentParser(
        "multimodal tokenizers", description="Make tokenizers in rounds, or vocabularies of texts.", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="{iterate,train}")
    _add_train(commands)
    own = commands.add_parser(
        "iterate",
        help="train a tokenizer and an encoder in turns, each from the other (BEATs)",
        description="Train a tokenizer and an encoder in turns: each round's tokenizer learns from the encoder of the round before,\n"
        "and each round's encoder learns to predict its ids (BEATs, https://arxiv.org/abs/2212.09058).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    own.add_argument("--config", type=Path, required=True, metavar="FILE", help="what the rounds are made of, see below")
    own.add_argument("--rounds", type=int, default=3, metavar="N", help="how many, those that are done counted (default: %(default)s)")
    own.add_argument("--run", type=Path, metavar="DIR", help="folder for all rounds (default: that of the config)")
    own.add_argument("--workers", type=int, metavar="N", help="processes that store ids (default: that of `shards tokenize`)")
    own.set_defaults(work=_iterate)
    options = parser.parse_args(arguments)
    return int(options.work(options))


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from multimodal.tokenizers.vocabularies import command

    own = commands.add_parser(
        "train",
        help=command.SUMMARY,
        description=command.DESCRIPTION,
        epilog=command.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_options(own)
    own.set_defaults(work=lambda options: _train(command.run, options))


def _train(run: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run the command; whatever it refuses is a mistake of the user's."""
    from multimodal.config_errors import ConfigError

    try:
        return run(options)
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from error


def _iterate(options: argparse.Namespace) -> int:
    from multimodal.config_errors import ConfigError
    from multimodal.datamodules.jobs.folder_lock import folder_lock
    from multimodal.iteration.child import CommandError
    from multimodal.iteration.plan import IterationPlan

    if options.rounds < 1:
        raise ConfigError(f"--rounds must be at least 1, got {options.rounds}.")
    try:
        plan, named = IterationPlan.read(options.config)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if options.run is None and not named:
        raise ConfigError(f"{options.config} names no run: give the folder for all rounds by --run.")
    root = options.run or Path(str(named))
    root.mkdir(parents=True, exist_ok=True)
    try:
        with folder_lock(root):
            _run(plan, root, options.rounds, options.workers)
    except CommandError as error:
        print(f"error: {error} Run the same command again to go on from there.", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on.", file=sys.stderr)
        return 130
    return 0


def _run(plan: object, root: Path, rounds: int, workers: int | None) -> None:
    from rich.console import Console

    from multimodal.iteration.plan import IterationPlan
    from multimodal.iteration.rounds import Rounds
    from multimodal.iteration.scores import round_scores

    assert isinstance(plan, IterationPlan)
    console = Console()
    made = Rounds(plan, root, lambda number, stage: console.rule(f"round {number} of {rounds}: {STAGES[stage]}", align="left"), workers)
    for number in range(1, rounds + 1):
        made.run(number)
    _print_table([round_scores(plan, made.folder(number)) for number in range(1, rounds + 1)], console)
    console.print(f"{made.folder(rounds).model}: the last encoder; {root / 'lineage.json'}: what was made from what", soft_wrap=True)


def _print_table(scores: Sequence[RoundScores], console: object) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("round", "codes", "used", "perplexity", "accuracy of predicted ids", "loss", title="on the validation split")
    for own in scores:
        said = ["" if x is None else f"{x:.3f}" for x in (own.accuracy, own.loss)]
        table.add_row(str(own.number), f"{own.vocab_size:,}", f"{own.usage:.1%}", f"{own.perplexity:.0f}", *said)
    assert isinstance(console, Console)
    console.print(table)
