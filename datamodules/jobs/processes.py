"""Jobs in several processes of this machine, which end with the one that started them, however it ends.

The standard library's pools wait for running jobs when one fails, and their processes outlive a parent that is killed by as much as a job:
a shard that is still being written while the next run begins.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

from multimodal.datamodules.jobs.run_jobs import Advance, listening

_POLL_S = 0.2
_GRACE_S = 3.0


def run_in_processes(function: Callable[[Any], Any], jobs: Sequence[Any], num_workers: int, listener: Advance) -> Iterator[tuple[int, Any]]:
    """Yield (number of the job, result) as the jobs end; see ``run_jobs``."""
    workers = _Workers(function, len(jobs), min(num_workers, len(jobs)), listener)
    try:
        yield from workers.run(jobs)
    finally:
        workers.stop()


class _Workers:
    def __init__(self, function: Callable[[Any], Any], num_jobs: int, num_workers: int, listener: Advance) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads (a progress bar, torch) may hang
        # samples and bytes of each job, written by the one process that does it: no lock that a killed process could keep
        self.counts = context.RawArray("q", 2 * num_jobs)
        self.listener, self.reported = listener, (0, 0)
        self.pipes: list[connection.Connection] = []
        self.processes: list[Any] = []
        self.busy: dict[connection.Connection, int] = {}
        for _ in range(num_workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(function, self.counts, theirs), daemon=True)
            with _interrupts_held():
                process.start()
            theirs.close()  # so that the end of the process is the end of the pipe
            self.pipes.append(ours)
            self.processes.append(process)

    def run(self, jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        waiting = deque(enumerate(jobs))
        for pipe in self.pipes:
            self._give(pipe, waiting)
        while self.busy:
            ready = connection.wait([*self.busy], timeout=_POLL_S)
            self._report()  # a job reports before it answers, so nothing is left when the last one has
            for pipe in (pipe for pipe in self.pipes if pipe in ready):
                number, result = self._take(pipe)
                self._give(pipe, waiting)
                yield number, result

    def _give(self, pipe: connection.Connection, waiting: deque[tuple[int, Any]]) -> None:
        if not waiting:
            return
        self.busy[pipe] = waiting[0][0]
        try:
            pipe.send(waiting.popleft())
        except OSError:
            raise self._death(pipe) from None

    def _take(self, pipe: connection.Connection) -> tuple[int, Any]:
        try:
            error, result = pipe.recv()
        except (EOFError, OSError):
            raise self._death(pipe) from None
        number = self.busy.pop(pipe)
        if error is not None:
            raise error
        return number, result

    def _death(self, pipe: connection.Connection) -> ChildProcessError:
        process = self.processes[self.pipes.index(pipe)]
        process.join(_GRACE_S)
        code = process.exitcode
        how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        hint = "if the machine ran out of memory, take fewer workers; what is finished is kept when the command is run again"
        return ChildProcessError(
            f"worker process {process.pid} {how} while it did job {self.busy[pipe] + 1} of {len(self.counts) // 2}: {hint}."
        )

    def _report(self) -> None:
        done = sum(self.counts[0::2]), sum(self.counts[1::2])
        if done != self.reported:
            self.listener(done[0] - self.reported[0], done[1] - self.reported[1])
            self.reported = done

    def stop(self) -> None:
        for process, pipe in zip(self.processes, self.pipes, strict=True):
            pipe.close()
            if self.busy:  # it stops in the middle of a job
                process.terminate()
        for process in self.processes:
            process.join(_GRACE_S)
            if process.is_alive():
                process.kill()
                process.join()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back, from this process for a moment and from those that it starts for good: the parent decides what ends."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(function: Callable[[Any], Any], counts: Any, pipe: connection.Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that no temporary file stays
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            number, job = pipe.recv()
        except EOFError:
            return
        with listening(_Counter(counts, 2 * number)):
            answer = _attempt(function, job)
        pipe.send(answer)


class _Counter:
    def __init__(self, counts: Any, place: int) -> None:
        self.counts, self.place = counts, place

    def __call__(self, samples: int, size: int) -> None:
        self.counts[self.place] += samples
        self.counts[self.place + 1] += size


def _attempt(function: Callable[[Any], Any], job: Any) -> tuple[Exception | None, Any]:
    try:
        return None, function(job)
    except Exception as error:
        error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        return sendable(error), None


def sendable(error: Exception) -> Exception:
    """Return the error, or one with its words where it cannot travel to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(143)
