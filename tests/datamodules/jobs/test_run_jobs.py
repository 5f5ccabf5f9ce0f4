import os
import signal
import subprocess
import sys
import time

import pytest

from multimodal.datamodules.jobs.run_jobs import advance, available_cpus, run_jobs
from multimodal.errors import SampleError


def square(number):
    advance(1, number)
    return number * number


def fail_at_three(number):
    if number == 3:
        raise SampleError("s.tar", "k", "num", "three")
    time.sleep(0.01)
    return number


class UnsendableError(Exception):
    def __init__(self, a, b):
        super().__init__(a)


def fail_unsendably(number):
    raise UnsendableError("why", number)


def die_at_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def process_of(number):
    time.sleep(0.05)
    return os.getpid()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_each_job_is_done_once_and_reports(workers):
    told = []
    done = dict(run_jobs(square, range(10), workers, listener=lambda samples, size: told.append((samples, size))))
    assert done == {number: number * number for number in range(10)}
    assert [sum(column) for column in zip(*told, strict=True)] == [10, 45]


@pytest.mark.parametrize("workers", [0, 2])
def test_no_jobs_are_no_work(workers):
    assert list(run_jobs(square, [], workers)) == []


def test_jobs_run_in_several_processes():
    processes = {process for _, process in run_jobs(process_of, range(8), 2)}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_a_job_outside_of_a_run_may_report():
    assert square(3) == 9


@pytest.mark.parametrize("workers", [0, 2])
def test_the_error_of_a_job_arrives_as_it_was(workers):
    with pytest.raises(SampleError, match=r"shard s\.tar, key 'k', field 'num': three") as caught:
        list(run_jobs(fail_at_three, range(50), workers))
    assert caught.value.key == "k"


def test_an_error_that_cannot_travel_arrives_as_its_words():
    with pytest.raises(RuntimeError, match="UnsendableError: why"):
        list(run_jobs(fail_unsendably, [1], 1))


def test_a_process_that_is_killed_is_an_error_and_no_hang():
    start = time.monotonic()
    with pytest.raises(ChildProcessError, match=r"was ended by signal 9 while it did job 4 of 20: if the machine ran out of memory"):
        list(run_jobs(die_at_three, range(20), 2))
    assert time.monotonic() - start < 30


def test_there_is_a_processor():
    assert 1 <= available_cpus() <= os.cpu_count()


PARENT = """
import os, time
from multimodal.datamodules.jobs.run_jobs import run_jobs

def tick(number):
    path = os.environ["TICKS"] + f"/{os.getpid()}"
    for _ in range(10_000):
        with open(path, "a") as file:
            file.write("x")
        time.sleep(0.01)

if __name__ == "__main__":
    list(run_jobs(tick, range(2), 2))
"""


def test_processes_end_when_their_parent_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    ticks = tmp_path / "ticks"
    ticks.mkdir()
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], env={**os.environ, "TICKS": str(ticks)})
    deadline = time.monotonic() + 60
    while len(list(ticks.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    time.sleep(1.0)
    sizes = {path: path.stat().st_size for path in ticks.iterdir()}
    time.sleep(0.5)
    assert len(sizes) == 2
    assert {path: path.stat().st_size for path in ticks.iterdir()} == sizes
