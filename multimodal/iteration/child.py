"""Commands of ours in processes of their own, which stop when this one is told to."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

COMMAND = [sys.executable, "-m", "multimodal"]


class CommandError(RuntimeError):
    """A command ended with an error.

    Args:
        arguments: of the command.
        code: its exit code, as a shell tells it.
    """

    def __init__(self, arguments: Sequence[str], code: int) -> None:
        super().__init__(f"`multimodal {' '.join(arguments)}` ended with exit code {code}.")
        self.code = code


def run_command(*arguments: str, quiet: bool = False) -> None:
    """Run ``multimodal`` with arguments, and wait for it. Ctrl-C reaches it too, and SIGTERM is passed on; it then has its time to save.

    Args:
        arguments: of the command.
        quiet: drop what it prints, but for errors.

    Raises:
        CommandError: it ended with an error, or was stopped.
        KeyboardInterrupt: this process was interrupted, and the command has ended.
    """
    child = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL if quiet else None)
    with _passed_on(child):
        try:
            code = child.wait()
        except KeyboardInterrupt:
            child.wait()
            raise
    if code:
        raise CommandError(arguments, code if code > 0 else 128 - code)


@contextmanager
def _passed_on(child: subprocess.Popen[bytes]) -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
