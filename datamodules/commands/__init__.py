"""The command ``multimodal shards``; each of its commands is a file here.

Such a file has ``SUMMARY``, ``DESCRIPTION`` and ``EPILOG``, which are its help, ``add_options(parser)`` and ``run(options)``.
"""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from multimodal.datamodules.commands import inspect, stats, tokenize, verify, write

COMMANDS = (write, tokenize, inspect, verify, stats)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line, as all errors of this command are."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``multimodal shards``."""
    parser = _Parser(prog="multimodal shards", description="Write, check and tokenize tar shards.")
    names = [command.__name__.rpartition(".")[-1] for command in COMMANDS]
    commands = parser.add_subparsers(dest="command", required=True, metavar=f"{{{','.join(names)}}}")
    lines_as_they_are = argparse.RawDescriptionHelpFormatter
    for name, command in zip(names, COMMANDS, strict=True):
        own = commands.add_parser(
            name, help=command.SUMMARY, description=command.DESCRIPTION, epilog=command.EPILOG, formatter_class=lines_as_they_are
        )
        command.add_options(own)
        own.set_defaults(run=command.run)
    return parser


def main(arguments: list[str]) -> int:
    """Run ``multimodal shards`` and return its exit code.

    0; 1 where ``verify`` found problems; 2 for an error of the user or the data; 130 when interrupted.
    """
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
