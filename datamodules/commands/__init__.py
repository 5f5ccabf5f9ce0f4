"""The command ``multimodal shards``; each of its commands is a file here."""

from __future__ import annotations

from multimodal.command_group import group_parser, run_command
from multimodal.datamodules.commands import inspect, stats, tokenize, verify, write


def main(arguments: list[str]) -> int:
    """Run ``multimodal shards`` and return its exit code.

    0; 1 where ``verify`` found problems; 2 for an error of the user or the data; 130 when interrupted.
    """
    commands = (write, tokenize, inspect, verify, stats)
    return run_command(group_parser("multimodal shards", "Write, check and tokenize tar shards.", commands), arguments)
