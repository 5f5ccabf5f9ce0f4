"""Jobs on Ray Data: on the cluster that ``RAY_ADDRESS`` names, or on a small one started here.

The shards and their sources must be at the same paths on all machines, on a shared file system.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from multimodal.datamodules.jobs.processes import sendable
from multimodal.datamodules.jobs.run_jobs import Advance, listening

_OBJECT_STORE_BYTES = 200_000_000  # jobs and results are small; the samples never pass through it


def run_on_ray(function: Callable[[Any], Any], jobs: Sequence[Any], num_workers: int, listener: Advance) -> Iterator[tuple[int, Any]]:
    """Yield (number of the job, result) as the jobs end; see ``run_jobs``. What a job reports arrives when it ends.

    Raises:
        ValueError: Ray is not installed.
    """
    workers = max(1, min(num_workers, len(jobs)))
    with _connected(workers) as ray:
        rows = [{"number": number, "job": pickle.dumps(job)} for number, job in enumerate(jobs)]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)) if rows else None
        for row in dataset.map(_Runner(function), concurrency=workers).iter_rows() if dataset else ():
            error, result, done = pickle.loads(row["answer"])
            if error is not None:
                raise error
            listener(*done)
            yield int(row["number"]), result


class _Runner:
    """One job of a row; a plain call on the other side, so that the same code does the work."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        done = [0, 0]

        def count(samples: int, size: int) -> None:
            done[0] += samples
            done[1] += size

        answer: tuple[Exception | None, Any, list[int]]
        try:
            with listening(count):
                answer = None, self.function(pickle.loads(row["job"])), done
        except Exception as error:
            answer = sendable(error), None, done
        return {"number": row["number"], "answer": pickle.dumps(answer)}


@contextmanager
def _connected(num_cpus: int) -> Iterator[Any]:
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise ValueError("--engine ray needs Ray: pip install 'multimodal[ray]'.") from None
    started = not ray.is_initialized()
    if started:
        own: dict[str, Any] = {"num_cpus": num_cpus, "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **({} if os.environ.get("RAY_ADDRESS") else own))
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()
