"""Writers that are killed, and disks that are full."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from multimodal.datamodules.commands import main
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.shards.reader import read_samples

SAMPLES = 1500


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("source")
    numbers = random.Random(0)
    for number in range(SAMPLES):
        (root / f"c{number % 5}").mkdir(exist_ok=True)
        (root / f"c{number % 5}" / f"{number:05d}.bin").write_bytes(numbers.randbytes(numbers.randrange(1, 20_000)))
    return root


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """The hashes that an uninterrupted run gives."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    assert main(arguments(source, folder, 0)) == 0
    return hashes(folder)


def arguments(source, folder, workers):
    return ["write", str(source), "--to", str(folder), "--samples-per-shard", "50", "--workers", str(workers)]


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def command(source, folder, workers):
    script = Path(__file__).with_name("kill_script.py")
    return [sys.executable, str(script), *arguments(source, folder, workers)[1:]]


def kill_once(source, folder, workers, after, number=signal.SIGKILL):
    """Start a run, kill it once it has written ``after`` shards or is done, and return whether it was killed in the middle."""
    process = subprocess.Popen(command(source, folder, workers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(folder.glob("*.tar"))) < after:
        time.sleep(0.002)
    process.send_signal(number)
    process.wait()
    assert all(path.stat().st_size % 512 == 0 for path in folder.glob("*.tar"))
    return not (folder / "index.json").exists()


def check_finished(source, folder, workers, whole):
    done = subprocess.run(command(source, folder, workers), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert hashes(folder) == whole
    index = ShardIndex.load(folder)
    found = [read_samples(folder / one.path, range(one.samples), one.samples) for shards in index.splits.values() for one in shards]
    keys = Counter(sample.key for samples in found for sample in samples)
    assert len(keys) == SAMPLES
    assert set(keys.values()) == {1}
    return done.stdout


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_goes_on_to_the_same_bytes(source, whole, tmp_path, workers):
    assert kill_once(source, tmp_path / "out", workers, after=8)
    shown = check_finished(source, tmp_path / "out", workers, whole)
    assert "shards of the interrupted run" in shown


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_twenty_kills_at_random_times_change_nothing(source, whole, tmp_path, workers):
    moments, middle = random.Random(workers), 0
    for number in range(10):
        folder = tmp_path / f"out{number}"
        for _ in range(1 + number % 2):  # now and then the run that goes on is killed too
            middle += kill_once(source, folder, workers, after=moments.randrange(0, 28))
        check_finished(source, folder, workers, whole)
    assert middle >= 10


def test_a_run_that_is_asked_to_end_leaves_no_half_shard(source, whole, tmp_path):
    assert kill_once(source, tmp_path / "out", 2, after=5, number=signal.SIGTERM)
    deadline = time.monotonic() + 10
    while list((tmp_path / "out").glob("*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list((tmp_path / "out").glob("*.tmp"))
    check_finished(source, tmp_path / "out", 2, whole)


def hear_interruptions() -> None:
    """Undo what a shell does to processes in its background: they ignore SIGINT, and so do those that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_run_says_how_to_go_on(source, whole, tmp_path):
    folder = tmp_path / "out"
    process = subprocess.Popen(
        command(source, folder, 2),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interruptions,
    )
    while process.poll() is None and len(list(folder.glob("*.tar"))) < 5:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: the workers get it too
    error = process.communicate(timeout=30)[1]
    assert (process.returncode, error) == (130, "interrupted: run the same command again to go on.\n")
    assert not list(folder.glob("*.tmp"))
    check_finished(source, folder, 2, whole)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB, where this process may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0 and shutil.which("mount") and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)])
    )
    if not mounted or mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_names_shard_and_bytes_and_the_run_goes_on_when_there_is_room(source, whole, small_disk, tmp_path, capsys, workers):
    assert main(arguments(source, small_disk / "out", workers)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: [Errno 28] No space left on device; the shard needs about ")
    assert ".tar'" in error and error.count("\n") == 1
    needed = int(error.partition("needs about ")[2].split()[0])
    assert 300_000 < needed < 800_000
    names = {path.name for path in (small_disk / "out").iterdir()}
    assert "index.json" not in names
    assert not [name for name in names if name.endswith(".tmp")]
    assert all(whole[name] == value for name, value in hashes(small_disk / "out").items() if name.endswith(".tar"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert main(arguments(source, small_disk / "out", workers)) == 0
    assert "shards of the interrupted run" in capsys.readouterr().out
    assert hashes(small_disk / "out") == whole


def test_a_full_disk_is_an_error_where_none_can_be_mounted(source, tmp_path, capsys, monkeypatch):
    real = os.fsync

    def full(descriptor):
        if os.fstat(descriptor).st_size > 100_000:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert main(arguments(source, tmp_path / "out", 0)) == 2
    assert "No space left on device; the shard needs about" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.tar*"))
