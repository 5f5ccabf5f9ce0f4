import errno
import hashlib
import json
import tarfile
from itertools import pairwise

import pytest
import webdataset

from multimodal.datamodules.jobs.folder_lock import folder_lock
from multimodal.datamodules.jobs.journal import JOURNAL_NAME
from multimodal.datamodules.shards import shard_file
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.writing.sources import FileError, SplitRule, arrange, scan_folder
from multimodal.datamodules.writing.write_plan import ShardLimits
from multimodal.datamodules.writing.writer import WriteOptions, write_shards


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def scanned(folder, **fractions):
    return arrange(scan_folder(folder), SplitRule(fractions or {"train": 1.0}))


def limited(samples, **settings):
    return WriteOptions(ShardLimits(samples), **settings)


@pytest.fixture
def splits(make_source):
    return scanned(make_source(count=40), train=0.8, val=0.2)


def test_plain_webdataset_reads_the_shards(splits, tmp_path):
    index = write_shards(splits, tmp_path / "out", limited(10)).index
    urls = [str(tmp_path / "out" / shard.path) for shard in index.shards("train")]
    read = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in read] == [sample.key for sample in splits["train"]]
    assert all(int(sample["num"]) == int(sample["__key__"][-4:]) for sample in read)
    assert {sample["json"] for sample in read} == {sample.read()["json"] for sample in splits["train"]}


def test_the_index_counts_what_is_there(splits, tmp_path):
    index = write_shards(splits, tmp_path / "out", limited(10)).index
    assert ShardIndex.load(tmp_path / "out") == index
    assert index.num_samples("train") + index.num_samples("val") == 40
    assert {name: info.samples for name, info in index.fields.items()} == {"num": 40, "json": 40}
    assert index.class_counts == {f"c{number}": 10 for number in range(4)}
    assert all(shard.samples == 10 for shard in index.shards("train")[:-1])
    for shard in [*index.shards("train"), *index.shards("val")]:
        data = (tmp_path / "out" / shard.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.bytes, shard.sha256)


def test_a_second_run_gives_the_same_bytes(splits, tmp_path):
    for name in ("one", "two", "one"):
        write_shards(splits, tmp_path / name, limited(10))
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


def test_long_and_foreign_names(tmp_path):
    names = ["x" * 180, "日本語" * 20, "d" * 90 + "/" + "e" * 90]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / f"{name}.num").write_text("1")
    splits = scanned(tmp_path / "in")
    write_shards(splits, tmp_path / "out")
    read = list(webdataset.WebDataset(str(tmp_path / "out/train-000000.tar"), shardshuffle=False))
    assert sorted(sample["__key__"] for sample in read) == sorted(names)


def test_members_carry_nothing_of_the_machine_and_lie_together(splits, tmp_path):
    write_shards(splits, tmp_path / "out", limited(100))
    with tarfile.open(tmp_path / "out/train-000000.tar") as archive:
        members = archive.getmembers()
    assert {(member.mtime, member.uid, member.gid, member.uname, member.mode) for member in members} == {(0, 0, 0, "", 0o644)}
    keys = [member.name.partition(".")[0] for member in members]
    assert sum(before != after for before, after in pairwise(keys)) + 1 == len(set(keys))


def test_a_failed_run_leaves_whole_shards_only_and_the_next_goes_on(splits, tmp_path, monkeypatch):
    write_shards(splits, tmp_path / "whole", limited(5))
    real, calls = shard_file.member_header, []

    def fail(name, size):
        calls.append(name)
        if len(calls) > 25:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(name, size)

    monkeypatch.setattr(shard_file, "member_header", fail)
    with pytest.raises(OSError, match=r"No space left on device; the shard needs about \d+ bytes: '.*train-000002.tar'"):
        write_shards(splits, tmp_path / "out", limited(5))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"train-000000.tar", "train-000001.tar", JOURNAL_NAME}
    monkeypatch.setattr(shard_file, "member_header", real)
    assert write_shards(splits, tmp_path / "out", limited(5)).kept == 2
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")


def test_an_interrupted_run_keeps_no_shard_that_changed(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(ShardIndex, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_shards(splits, tmp_path / "out", limited(5))
    monkeypatch.undo()
    finished = sorted((tmp_path / "out").glob("*.tar"))
    finished[0].write_bytes(b"other")
    finished[1].unlink()
    with (tmp_path / "out" / JOURNAL_NAME).open("a") as journal:
        journal.write('\n{"cut')
    assert write_shards(splits, tmp_path / "out", limited(5)).kept == len(finished) - 2
    write_shards(splits, tmp_path / "whole", limited(5))
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")


def test_shards_of_an_earlier_run_that_are_no_longer_needed_go(splits, tmp_path):
    write_shards(splits, tmp_path / "out", limited(5))
    (tmp_path / "out/mine.tar").write_bytes(b"not ours")
    write_shards(splits, tmp_path / "out", limited(100))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"index.json", "mine.tar", "train-000000.tar", "val-000000.tar"}


def test_a_file_lost_after_the_scan_is_named_or_left_out(splits, tmp_path):
    lost = splits["train"][3]
    (tmp_path / "source" / lost.source).unlink()
    with pytest.raises(FileError, match=f"{lost.source}: No such file"):
        write_shards(splits, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == []
    result = write_shards(splits, tmp_path / "out", WriteOptions(on_error="skip"))
    assert len(result.problems) == 1
    assert lost.source in result.problems[0]
    assert result.index.fields["num"].samples == 39


def test_a_shard_of_only_bad_files_is_not_there(splits, tmp_path):
    for sample in splits["val"]:
        (tmp_path / "source" / sample.source).unlink()
    result = write_shards(splits, tmp_path / "out", WriteOptions(on_error="skip"))
    assert result.index.splits["val"] == []
    assert not (tmp_path / "out/val-000000.tar").exists()


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_processes_changes_nothing(splits, tmp_path, workers):
    done = []
    write_shards(splits, tmp_path / "one", limited(5))
    write_shards(splits, tmp_path / "more", limited(5, num_workers=workers), listener=lambda samples, size: done.append((samples, size)))
    assert hashes(tmp_path / "more") == hashes(tmp_path / "one")
    assert sum(samples for samples, _ in done) == 40
    shards = sum(path.stat().st_size for path in (tmp_path / "one").glob("*.tar"))
    assert sum(size for _, size in done) == shards - 1024 * len(list((tmp_path / "one").glob("*.tar")))  # the ends of the archives


def test_an_error_in_a_process_is_that_of_the_file(splits, tmp_path):
    lost = splits["train"][3]
    (tmp_path / "source" / lost.source).unlink()
    with pytest.raises(FileError, match=f"{lost.source}: No such file"):
        write_shards(splits, tmp_path / "out", limited(5, num_workers=2))
    assert not list((tmp_path / "out").glob("*.tmp"))
    (tmp_path / "source" / lost.source).write_text("0")
    with pytest.raises(FileError, match=r"had . bytes when it was scanned, now 1"):
        write_shards(splits, tmp_path / "out", limited(5))


@pytest.mark.parametrize(("size", "shards"), [(1, 40), (20_000, 4), (10**9, 1)])
def test_shards_of_a_size(make_source, tmp_path, size, shards):
    splits = scanned(make_source(count=40))
    index = write_shards(splits, tmp_path / "out", WriteOptions(ShardLimits(None, size))).index
    assert abs(len(index.shards("train")) - shards) <= 1
    assert size == 1 or all(shard.bytes <= size + 1024 for shard in index.shards("train"))
    assert index.num_samples("train") == 40


def test_a_folder_has_one_writer_at_a_time(splits, tmp_path, monkeypatch):
    monkeypatch.setattr("multimodal.datamodules.jobs.folder_lock._PATIENCE_S", 0.2)
    (tmp_path / "out").mkdir()
    with folder_lock(tmp_path / "out"), pytest.raises(ValueError, match=r"another process is writing into .*out: wait"):
        write_shards(splits, tmp_path / "out")
    assert write_shards(splits, tmp_path / "out").index


def test_shards_of_an_unfinished_run_with_another_plan_go(splits, tmp_path, monkeypatch):
    write_shards(splits, tmp_path / "out", limited(20))
    monkeypatch.setattr(ShardIndex, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_shards(splits, tmp_path / "out", limited(5))
    monkeypatch.undo()
    assert len(list((tmp_path / "out").glob("*.tar"))) > 5
    write_shards(splits, tmp_path / "out", limited(100))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"index.json", "train-000000.tar", "val-000000.tar"}


def test_a_folder_that_is_written_anew_has_no_index_until_it_is_complete(splits, tmp_path):
    write_shards(splits, tmp_path / "out", limited(5))
    lost = splits["val"][-1]
    (tmp_path / "source" / lost.source).unlink()
    with pytest.raises(FileError, match=f"{lost.source}: No such file"):
        write_shards(splits, tmp_path / "out", limited(6))
    assert not (tmp_path / "out/index.json").exists()


@pytest.mark.parametrize("name", ["{tmp}/mine.tar", "../mine.tar", "a/../../mine.tar", "mine.txt"])
def test_notes_of_somebody_else_remove_nothing_but_shards(splits, tmp_path, name):
    for path in (tmp_path / "mine.tar", tmp_path / "out/mine.txt"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("not ours")
    (tmp_path / "out/a").mkdir()
    (tmp_path / "out" / JOURNAL_NAME).write_text(json.dumps({"replaced": [name.replace("{tmp}", str(tmp_path))]}))
    write_shards(splits, tmp_path / "out")
    assert (tmp_path / "mine.tar").exists()
    assert (tmp_path / "out/mine.txt").exists()


def test_what_a_killed_writer_left_is_removed(splits, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/train-000000.tar.0123abcd.tmp").write_bytes(b"half")
    (tmp_path / "out/mine.tmp").write_bytes(b"not ours")
    write_shards(splits, tmp_path / "out", limited(100))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"index.json", "mine.tmp", "train-000000.tar", "val-000000.tar"}
