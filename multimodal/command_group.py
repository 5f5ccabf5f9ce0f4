"""A command with commands of its own, such as ``multimodal shards``, each a module; and the parser that they share.

Nothing heavy is imported here, nor by such modules before they run: their help is to come at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NoReturn


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaint is one line, and that takes no abbreviation for an option.

    Args:
        args: see ``argparse.ArgumentParser``.
        kwargs: likewise.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        """End with the message in one line and exit code 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def group_parser(name: str, description: str, commands: Sequence[ModuleType], epilog: str | None = None) -> OneLineParser:
    """Return the parser of a command whose commands are modules.

    Args:
        name: of the command, such as ``multimodal shards``.
        description: what it is for.
        commands: modules with ``SUMMARY``, ``DESCRIPTION`` and ``EPILOG``, which are the command's help, ``add_options(parser)`` and
            ``run(options)``. A command is called as its module, with hyphens; an underscore at the end, for names that Python keeps, is
            left out.
        epilog: what stands below all else in the help.
    """
    lines_as_they_are = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog=name, description=description, epilog=epilog, formatter_class=lines_as_they_are)
    names = [command.__name__.rpartition(".")[-1].rstrip("_").replace("_", "-") for command in commands]
    parsers = parser.add_subparsers(dest="command", required=True, metavar=f"{{{','.join(names)}}}")
    for own_name, command in zip(names, commands, strict=True):
        own = parsers.add_parser(
            own_name, help=command.SUMMARY, description=command.DESCRIPTION, epilog=command.EPILOG, formatter_class=lines_as_they_are
        )
        command.add_options(own)
        own.set_defaults(work=command.run)  # not run, which is an option of some
    return parser


def run_command(
    parser: argparse.ArgumentParser, arguments: Sequence[str], work: Callable[[argparse.Namespace], int | None] | None = None
) -> int:
    """Run a command and return its exit code: its own, 2 for an error of the user or the data, 130 when interrupted.

    Args:
        parser: of the command.
        arguments: of the command line.
        work: what is done with the options; None: what the parser of a group says, whose commands all go on when they are run again.

    Raises:
        KeyboardInterrupt: ``work`` was interrupted.
    """
    try:
        options = parser.parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    try:
        return int((work or options.work)(options) or 0)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if work is not None:
            raise
        print("interrupted: run the same command again to go on.", file=sys.stderr)
        return 130
