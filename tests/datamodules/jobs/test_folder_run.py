import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from multimodal.datamodules.jobs import folder_run
from multimodal.datamodules.jobs.folder_run import FolderRun, written_index
from multimodal.datamodules.jobs.journal import JOURNAL_NAME
from multimodal.datamodules.jobs.parts import Part
from multimodal.datamodules.jobs.run_jobs import advance
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.shards.shard_file import ShardFile


@dataclass(frozen=True)
class Numbers:
    """A shard of the numbers from ``first`` on; a number below 0 is a sample that cannot be used."""

    split: str
    path: str
    first: int
    num_samples: int = 3

    @property
    def plan(self) -> str:
        return f"{self.first} {self.num_samples}"


@dataclass(frozen=True)
class Maker:
    """Makes a shard, but not the one named ``fails``."""

    root: Path
    fails: str = ""

    def __call__(self, numbers):
        with ShardFile(self.root / numbers.path) as shard:
            if numbers.path == self.fails:
                raise ValueError(f"{numbers.path} cannot be made")
            for number in range(numbers.first, numbers.first + numbers.num_samples):
                if number < 0:
                    shard.contents.problems.append(f"{number} is below 0")
                    advance(1)
                else:
                    advance(1, shard.add(f"k{number}", {"num": str(number).encode()}))
        return shard.info, shard.contents


def shards(count=4, first=0):
    """Return shards of three numbers each, the last in val, the others in train."""
    names = ["train"] * (count - 1) + ["val"]
    return [Numbers(split, f"{split}-{place:06d}.tar", first + 3 * place) for place, split in enumerate(names)]


def run(root, planned=None, plan="p", fails="", part="1/1", listener=None, **settings):
    outline = ShardIndex({"val": (), "train": (), "test": ()}, {}, writer=settings)
    return FolderRun(root, plan, outline, planned or shards(), Maker(root, fails), part=Part.parse(part)).run(listener)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_index_holds_what_was_made_and_what_the_outline_says(tmp_path):
    index = run(tmp_path, size=3).index
    assert index == ShardIndex.load(tmp_path)
    assert {split: [shard.path for shard in found] for split, found in index.splits.items()} == {
        "val": ["val-000003.tar"],
        "train": [f"train-{number:06d}.tar" for number in range(3)],
        "test": [],
    }
    assert list(index.splits) == ["val", "train", "test"]
    assert index.fields["num"].samples == 12
    assert index.writer == {"size": 3, "plan": "p"}
    assert names(tmp_path) == ["index.json", *(f"train-{number:06d}.tar" for number in range(3)), "val-000003.tar"]


def test_what_was_finished_is_kept_and_counted_as_done(tmp_path):
    root, told = tmp_path / "out", []
    with pytest.raises(ValueError, match=r"train-000002\.tar cannot be made"):
        run(root, fails="train-000002.tar")
    assert not (root / "index.json").exists()
    times = {path: path.stat().st_mtime_ns for path in root.glob("*.tar")}
    assert sorted(path.name for path in times) == ["train-000000.tar", "train-000001.tar"]
    result = run(root, listener=lambda samples, size: told.append(samples))
    assert (result.kept, result.missing) == (2, [])
    assert told == [3, 3, *[1] * 6]
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    run(tmp_path / "whole")
    assert contents(root) == contents(tmp_path / "whole")


def test_a_shard_that_is_planned_otherwise_or_was_changed_is_made_again(tmp_path):
    with pytest.raises(ValueError, match="cannot be made"):
        run(tmp_path, fails="val-000003.tar")
    changed = tmp_path / "train-000001.tar"
    changed.write_bytes(changed.read_bytes()[:-512] + b"x" * 512)
    other = [Numbers("train", "train-000000.tar", 100), *shards()[1:]]
    assert run(tmp_path, other).kept == 1


def test_a_shard_without_samples_is_in_no_split_and_its_problems_are_told(tmp_path):
    result = run(tmp_path, [Numbers("train", "train-000000.tar", -4), *shards()[1:]])
    assert result.problems == ["-4 is below 0", "-3 is below 0", "-2 is below 0"]
    assert [shard.path for shard in result.index.shards("train")] == ["train-000001.tar", "train-000002.tar"]
    assert "train-000000.tar" not in names(tmp_path)


def test_shards_of_an_earlier_index_go_even_where_some_are_missing(tmp_path):
    run(tmp_path, shards(6))
    (tmp_path / "train-000000.tar").unlink()
    run(tmp_path, shards(2), plan="q")
    assert names(tmp_path) == ["index.json", "train-000000.tar", "val-000001.tar"]


def test_a_folder_whose_shards_are_being_replaced_has_no_index(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match="cannot be made"):
        run(tmp_path, shards(first=100), plan="q", fails="train-000001.tar")
    assert not (tmp_path / "index.json").exists()


@pytest.mark.parametrize("part", ["1/1", "2/3"])
def test_shards_of_an_unfinished_run_with_other_shards_go(tmp_path, part):
    planned = shards(8)
    with pytest.raises(ValueError, match="cannot be made"):
        run(tmp_path, planned, plan="q", part=part, fails=planned[7].path)
    run(tmp_path, shards(2))
    assert names(tmp_path) == ["index.json", "train-000000.tar", "val-000001.tar"]


def test_no_file_goes_that_is_no_shard_of_the_folder(tmp_path):
    root = tmp_path / "out"
    (root / "below").mkdir(parents=True)
    precious = [tmp_path / "other.tar", root / "below/other.tar", root / "notes.txt"]
    for path in precious:
        path.write_text("precious")
    paths = ["../other.tar", "below/other.tar", "notes.txt", str(tmp_path / "other.tar")]
    (root / JOURNAL_NAME).write_text(json.dumps({"replaced": paths}))
    run(root)
    assert all(path.read_text() == "precious" for path in precious)
    assert not (root / JOURNAL_NAME).exists()


def test_a_part_says_which_others_are_missing(tmp_path):
    assert (run(tmp_path, part="2/3").index, run(tmp_path, part="2/3").missing) == (None, [1, 3])
    assert run(tmp_path, part="3/3").missing == [1]
    result = run(tmp_path, part="1/3")
    assert (result.index, result.missing) == (ShardIndex.load(tmp_path), [])


def test_a_part_that_ends_while_another_writes_the_index_has_it(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole").index
    root, merge = tmp_path / "out", folder_run.merge_parts
    run(root, part="1/2")

    def merge_too_late(part, folder, plan):
        for path in folder.glob(".part-*"):
            path.unlink()
        shutil.copy(tmp_path / "whole/index.json", folder)
        return merge(part, folder, plan)

    monkeypatch.setattr(folder_run, "merge_parts", merge_too_late)
    result = run(root, part="2/2")
    assert (result.index, result.missing) == (whole, [])


def test_two_runs_at_a_time_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("multimodal.datamodules.jobs.folder_lock._PATIENCE_S", 0.0)
    refused = []

    def second(samples, size):
        if not refused:
            with pytest.raises(ValueError, match="another process is writing into") as error:
                run(tmp_path)
            refused.append(error)

    run(tmp_path, listener=second)
    assert len(refused) == 1 and len(ShardIndex.load(tmp_path).shards("train")) == 3


def test_a_written_index_is_that_of_the_plan_with_all_shards(tmp_path):
    assert written_index(tmp_path, "p") is None
    index = run(tmp_path).index
    assert written_index(tmp_path, "p") == index
    assert written_index(tmp_path, "q") is None
    (tmp_path / "val-000003.tar").unlink()
    assert written_index(tmp_path, "p") is None
