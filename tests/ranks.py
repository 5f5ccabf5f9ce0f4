"""Run functions and scripts of tests as ranks of one run. Not a test by itself.

The processes are forked from one that has imported what they need, so that each starts at once instead of in ten seconds, and they have the
environment that torchrun makes (``tests/training/test_torchrun.py`` uses torchrun itself).
"""

import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import wait
from pathlib import Path

IMPORTED = ["lightning", "multimodal.training.callbacks", "multimodal.tokenizers.image", "multimodal.tokenizers.midi"]
SECONDS = 300
"""After which ranks that have not ended are stopped."""


def run_script(script: Path, *arguments: str, ranks: int = 2) -> str:
    """Run a script with its arguments; else as ``run_ranks``."""
    return run_ranks(_run_as_main, str(script), *arguments, ranks=ranks)


def run_ranks(function: Callable[..., None], *arguments: object, ranks: int = 2) -> str:
    """Call a function of a module on each rank and return what they wrote to stderr.

    Args:
        function: what each rank runs.
        arguments: of it, equal on all ranks.
        ranks: how many; a single one has no environment of a distributed run.

    Raises:
        AssertionError: a rank failed, or did not end; with the end of its stderr.
    """
    own, context = multiprocessing.get_start_method(), multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        logs = [folder / f"{rank}.txt" for rank in range(ranks)]
        environments = _environments(ranks) if ranks > 1 else [dict(os.environ)]
        processes = [
            context.Process(target=_begin, args=(environment, str(log), own, function, arguments))
            for environment, log in zip(environments, logs, strict=True)
        ]
        for process in processes:
            process.start()
            stack.callback(_stop, process)
        end = time.monotonic() + SECONDS
        while (running := [x for x in processes if x.exitcode is None]) and not any(x.exitcode for x in processes):
            assert wait([x.sentinel for x in running], end - time.monotonic()), f"no end after {SECONDS} s"
        texts = [log.read_text() for log in logs]
        codes = [process.exitcode for process in processes]
    assert codes == [0] * ranks, "\n".join(text[-3000:] for text, code in zip(texts, codes, strict=True) if code) or codes
    return "".join(texts)


def _environments(ranks: int) -> list[dict[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared["TORCHELASTIC_RUN_ID"] = "tests"
    each = [shared | {"RANK": rank, "LOCAL_RANK": rank} for rank in range(ranks)]
    return [dict(os.environ) | {name: str(value) for name, value in own.items()} for own in each]


def _begin(environment: dict[str, str], log: str, start_method: str, function: Callable[..., None], arguments: tuple) -> None:
    multiprocessing.set_start_method(start_method, force=True)  # of data workers; it would be that of this process
    os.environ.clear()
    os.environ.update(environment)
    with open(log, "w") as file:
        os.dup2(file.fileno(), 2)
    function(*arguments)


def _run_as_main(script: str, *arguments: str) -> None:
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def _stop(process: multiprocessing.Process) -> None:
    if process.exitcode is None:
        process.kill()
    process.join()
