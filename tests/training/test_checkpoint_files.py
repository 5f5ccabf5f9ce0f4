"""Checkpoints on disk: whole or not there, and no code is run to read one."""

import errno
import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from multimodal.training.checkpoint_files import CheckpointFiles, find_last, read_checkpoint

CHECKPOINT = {"state_dict": {"weight": torch.arange(50_000.0)}, "epoch": 3, "callbacks": {"A": {"path": "x"}}}


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoints/last.ckpt"
    CheckpointFiles().save_checkpoint(CHECKPOINT, path)
    return path


def test_what_is_written_is_read_and_leaves_nothing_beside_it(saved):
    for read in (CheckpointFiles().load_checkpoint(saved), read_checkpoint(saved, mapped=True)):
        assert torch.equal(read["state_dict"]["weight"], torch.arange(50_000.0)) and read["callbacks"] == CHECKPOINT["callbacks"]
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]


def test_file_and_folder_are_on_disk_before_the_name_counts(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (order.append("fsync"), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("replace"), replace(*paths)))
    CheckpointFiles().save_checkpoint(CHECKPOINT, tmp_path / "a.ckpt")
    assert order == ["fsync", "replace", "fsync"]


class FullDisk(io.FileIO):
    """A file on a disk with room for 50,000 bytes."""

    def write(self, data):
        if self.tell() + len(data) > 50_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_full_disk_is_named_and_leaves_the_earlier_file(saved, monkeypatch):
    whole = saved.read_bytes()
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode="r", **more: FullDisk(path, "w") if mode == "wb" else opened(path, mode, **more))
    larger = CHECKPOINT | {"state_dict": {"weight": torch.zeros(100_000)}}
    with pytest.raises(OSError, match=r"last\.ckpt could not be written \(400,000 bytes of tensors, [\d,]+ bytes free\): .*No space left"):
        CheckpointFiles().save_checkpoint(larger, saved)
    assert saved.read_bytes() == whole
    assert [path.name for path in saved.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_is_really_full(tmp_path):
    import subprocess

    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(tmp_path)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        path = tmp_path / "last.ckpt"
        CheckpointFiles().save_checkpoint({"state_dict": {"weight": torch.zeros(20_000)}}, path)
        with pytest.raises(OSError, match=r"could not be written.*No space left on device"):
            CheckpointFiles().save_checkpoint(CHECKPOINT, path)
        assert torch.equal(read_checkpoint(path)["state_dict"]["weight"], torch.zeros(20_000))
        assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_a_file_that_is_cut_off_is_refused(saved, share):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: min(round(share * len(whole)), len(whole) - 1)])
    with pytest.raises(ValueError, match=r"last\.ckpt.*(cut off|damaged)"):
        read_checkpoint(saved)


def test_one_flipped_bit_is_found(saved):
    whole = bytearray(saved.read_bytes())
    for place in range(len(whole) // 7, len(whole), len(whole) // 7):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"last\.ckpt.*damaged"):
            read_checkpoint(saved)


def test_other_files_are_refused(tmp_path):
    for name, data in (("a.txt", b"hello"), ("empty", b""), ("a.pickle", pickle.dumps({"state_dict": {}}))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}.*no checkpoint, or is cut off"):
            read_checkpoint(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a.txt", "hello")
    with pytest.raises(ValueError, match=r"a\.zip is no checkpoint, or is damaged"):
        read_checkpoint(tmp_path / "a.zip")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(ValueError, match=r"list\.ckpt is no checkpoint of a run: it has no state_dict"):
        read_checkpoint(tmp_path / "list.ckpt")
    with pytest.raises(ValueError, match=r"nowhere\.ckpt does not exist"):
        read_checkpoint(tmp_path / "nowhere.ckpt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["state_dict", "hyper_parameters"])
@pytest.mark.parametrize("forced", [False, True])
def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch, zipped, place, forced):
    if forced:  # the variable with which PyTorch is told to trust all files
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    canary, path = tmp_path / "canary", tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}} | {place: {"a": Touch(canary)}}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"posix\.system|no checkpoint") as raised:
        CheckpointFiles().load_checkpoint(path, weights_only=False)
    assert "\n" not in str(raised.value)
    assert not canary.exists()


def test_the_newest_that_can_be_read_is_found(tmp_path):
    files = CheckpointFiles()
    assert find_last(tmp_path) == (None, [])
    for number, name in enumerate(("epoch-0001", "epoch-0002", "last")):
        files.save_checkpoint(CHECKPOINT, tmp_path / f"{name}.ckpt")
        os.utime(tmp_path / f"{name}.ckpt", (number, number))
    (tmp_path / "last.ckpt.tmp").write_bytes(b"half")
    assert find_last(tmp_path) == (tmp_path / "last.ckpt", [])
    for name in ("last", "epoch-0002"):
        (tmp_path / f"{name}.ckpt").write_bytes(b"x")
    found, problems = find_last(tmp_path)
    assert found == tmp_path / "epoch-0001.ckpt" and len(problems) == 2 and "last.ckpt" in problems[0]
    (tmp_path / "epoch-0001.ckpt").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"no checkpoint in .* can be read: .*last\.ckpt .*epoch-0001.*epoch-0002"):
        find_last(tmp_path)
