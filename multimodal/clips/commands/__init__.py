"""The command ``multimodal clips``; each of its commands is a file here.

Such a file has ``SUMMARY``, ``DESCRIPTION`` and ``EPILOG``, which are its help, ``add_options(parser)`` and ``run(options)``.
"""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from multimodal.clips.commands import caption_features, classify, cluster, continue_, encode, features, retrieve, show

COMMANDS = (features, cluster, encode, show, classify, retrieve, caption_features, continue_)
STEPS = """\
From films to words of films (VideoBERT):
  multimodal clips features data/films --config configs/clips/s3d.yaml --to data/films-features
  multimodal clips cluster data/films-features --branching 12 --depth 4 --to runs/clusters
  multimodal clips encode data/films-features --tokenizer runs/clusters --to data/films-ids
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line, as all errors of this command are."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``multimodal clips``."""
    lines_as_they_are = argparse.RawDescriptionHelpFormatter
    description = "Cut films into clips, make features of them, and number the clusters of these."
    parser = _Parser(prog="multimodal clips", description=description, epilog=STEPS, formatter_class=lines_as_they_are)
    names = [command.__name__.rpartition(".")[-1].rstrip("_").replace("_", "-") for command in COMMANDS]
    commands = parser.add_subparsers(dest="command", required=True, metavar=f"{{{','.join(names)}}}")
    for name, command in zip(names, COMMANDS, strict=True):
        own = commands.add_parser(
            name, help=command.SUMMARY, description=command.DESCRIPTION, epilog=command.EPILOG, formatter_class=lines_as_they_are
        )
        command.add_options(own)
        own.set_defaults(run=command.run)
    return parser


def main(arguments: list[str]) -> int:
    """Run ``multimodal clips`` and return its exit code: 0; 2 for an error of the user or the data; 130 when interrupted."""
    try:
        options = build_parser().parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        return int(options.run(options))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on.", file=sys.stderr)
        return 130
