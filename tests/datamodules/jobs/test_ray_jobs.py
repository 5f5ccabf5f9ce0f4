"""The same work on a small Ray started here, in a process of its own, so that no test after it finds one running."""

import hashlib
import subprocess
import sys

import pytest

pytest.importorskip("ray")

SCRIPT = """
import sys
from multimodal.datamodules.commands import main
from multimodal.datamodules.jobs.run_jobs import advance, run_jobs
from multimodal.errors import SampleError

def work(number):
    advance(1, number)
    if number == 9:
        raise SampleError("s.tar", "k", "num", "nine")
    return number * number

def check_jobs():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200_000_000, log_to_driver=False)
    told = []
    done = dict(run_jobs(work, range(6), 2, "ray", lambda samples, size: told.append((samples, size))))
    assert done == {number: number * number for number in range(6)}
    assert [sum(column) for column in zip(*told)] == [6, 15]
    assert list(run_jobs(work, [], 2, "ray")) == []
    try:
        list(run_jobs(work, [9], 2, "ray"))
        raise AssertionError("no error")
    except SampleError as error:
        assert (error.key, error.reason) == ("k", "nine")

if __name__ == "__main__":
    check_jobs()
    sys.exit(main(["write", *sys.argv[1:], "--engine", "ray", "--workers", "2"]))
"""


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_ray_writes_the_shards_and_the_index_that_one_process_writes(make_source, tmp_path):
    from multimodal.datamodules.commands import main

    arguments = [str(make_source(count=60)), "--samples-per-shard", "10", "--deduplicate", "--to"]
    assert main(["write", *arguments, str(tmp_path / "local"), "--workers", "0"]) == 0
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), *arguments, str(tmp_path / "ray")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert hashes(tmp_path / "ray") == hashes(tmp_path / "local")


def test_without_ray_the_error_says_what_to_install(make_source, tmp_path, capsys, monkeypatch):
    from multimodal.datamodules.commands import main

    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["write", str(make_source()), "--to", str(tmp_path / "out"), "--engine", "ray"]) == 2
    assert capsys.readouterr().err == "error: --engine ray needs Ray: pip install 'multimodal[ray]'.\n"
