"""Run independent jobs, one a shard: here, or in several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(function: Callable[[Job], Result], jobs: Sequence[Job], num_workers: int = 0) -> Iterator[tuple[int, Result]]:
    """Yield (number of the job, result) as the jobs end, in any order.

    Args:
        function: does one job; it and the jobs travel to other processes, so both must be picklable.
        jobs: what to do.
        num_workers: processes; 0 runs the jobs here, one after the other.

    Raises:
        Exception: that of the first job that fails; jobs that have not begun are given up.
    """
    if num_workers < 1:
        yield from ((number, function(job)) for number, job in enumerate(jobs))
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads (a progress bar, torch) may hang
    with ProcessPoolExecutor(min(num_workers, max(1, len(jobs))), mp_context=context) as pool:
        numbers = {pool.submit(function, job): number for number, job in enumerate(jobs)}
        try:
            for future in as_completed(numbers):
                yield numbers[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)
