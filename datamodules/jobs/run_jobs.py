"""Run independent jobs, one a shard: here, in several processes, or on Ray. The work on a sample is the same everywhere.

A job says how far it is by ``advance``; whoever runs the jobs is told, wherever they run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
Advance = Callable[[int, int], Any]
"""Told the number of samples and of bytes that were done since it was called last."""
Engine = Literal["local", "ray"]


def _ignore(samples: int, size: int) -> None:
    """What a job outside of ``run_jobs`` reports to."""


_listener: ContextVar[Advance] = ContextVar("listener", default=_ignore)


def advance(samples: int, size: int = 0) -> None:
    """Report, from within a job, samples and bytes that are done."""
    _listener.get()(samples, size)


@contextmanager
def listening(listener: Advance) -> Iterator[None]:
    """Send what the jobs of this block report to ``listener``."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    num_workers: int = 0,
    engine: Engine = "local",
    listener: Advance | None = None,
) -> Iterator[tuple[int, Result]]:
    """Yield (number of the job, result) as the jobs end, in any order.

    Args:
        function: does one job; it and the jobs travel to other processes, so both must be picklable.
        jobs: what to do.
        num_workers: processes; 0 runs the jobs here, one after the other (on Ray: one worker).
        engine: "local" for processes of this machine, "ray" for Ray Data: the cluster of ``RAY_ADDRESS``, or one started here.
        listener: told what the jobs report by ``advance``.

    Raises:
        ValueError: Ray is not installed.
        ChildProcessError: a process died, for want of memory say.
        Exception: that of the first job that fails; the others are given up.
    """
    listener = listener or _ignore
    if engine == "ray":
        from multimodal.datamodules.jobs.ray_jobs import run_on_ray

        yield from run_on_ray(function, jobs, num_workers, listener)
    elif num_workers < 1:
        for number, job in enumerate(jobs):
            with listening(listener):
                result = function(job)
            yield number, result
    else:
        from multimodal.datamodules.jobs.processes import run_in_processes

        yield from run_in_processes(function, jobs, num_workers, listener)


def available_cpus() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
