import hashlib
import json

import pytest

from multimodal.datamodules.jobs.parts import Part
from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.writing.sources import SplitRule, arrange, scan_folder
from multimodal.datamodules.writing.write_plan import ShardLimits
from multimodal.datamodules.writing.writer import WriteOptions, write_shards


@pytest.fixture
def splits(make_source):
    return arrange(scan_folder(make_source(count=60)), SplitRule({"train": 0.8, "val": 0.2}))


def write(splits, folder, part="1/1", samples=5):
    return write_shards(splits, folder, WriteOptions(ShardLimits(samples), part=Part.parse(part)))


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("order", [[1, 2, 3], [3, 1, 2]])
def test_parts_in_any_order_give_what_one_run_gives(splits, tmp_path, order):
    write(splits, tmp_path / "whole")
    for place, number in enumerate(order):
        result = write(splits, tmp_path / "out", f"{number}/3")
        assert result.missing == sorted(order[place + 1 :])
        assert (result.index is None) == bool(result.missing)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")


def test_each_shard_belongs_to_one_part(splits, tmp_path):
    names = []
    for number in (1, 2, 3):
        write(splits, tmp_path / str(number), f"{number}/3")
        names.append({path.name for path in (tmp_path / str(number)).glob("*.tar")})
    write(splits, tmp_path / "whole")
    assert sum(map(len, names)) == len(set.union(*names)) == len(list((tmp_path / "whole").glob("*.tar")))
    assert max(map(len, names)) - min(map(len, names)) <= 1


def test_a_part_that_is_run_again_keeps_its_shards(splits, tmp_path):
    assert write(splits, tmp_path / "out", "1/2").kept == 0
    assert write(splits, tmp_path / "out", "1/2").kept == len(list((tmp_path / "out").glob("*.tar")))


def test_parts_of_different_plans_do_not_mix(splits, tmp_path):
    write(splits, tmp_path / "out", "1/2", samples=5)
    assert write(splits, tmp_path / "out", "2/2", samples=4).missing == [1]
    write(splits, tmp_path / "out", "1/2", samples=4)
    write(splits, tmp_path / "whole", samples=4)
    index = ShardIndex.load(tmp_path / "out")
    assert index == ShardIndex.load(tmp_path / "whole")
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")


def test_a_part_whose_shard_is_gone_is_missing(splits, tmp_path):
    write(splits, tmp_path / "out", "1/2")
    next((tmp_path / "out").glob("*.tar")).unlink()
    assert write(splits, tmp_path / "out", "2/2").missing == [1]
    assert write(splits, tmp_path / "out", "1/2").missing == []


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"plan": 3}'])
def test_a_damaged_note_is_a_missing_part(splits, tmp_path, damage):
    write(splits, tmp_path / "out", "1/2")
    (tmp_path / "out/.part-1-of-2.json").write_bytes(damage)
    assert write(splits, tmp_path / "out", "2/2").missing == [1]


def test_shards_of_an_earlier_index_go_when_the_last_part_ends(splits, tmp_path):
    write(splits, tmp_path / "out", samples=2)
    for number in (1, 2):
        write(splits, tmp_path / "out", f"{number}/2", samples=10)
    write(splits, tmp_path / "whole", samples=10)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")


def test_what_another_number_of_parts_left_goes(splits, tmp_path):
    write(splits, tmp_path / "out", "1/3", samples=2)
    for number in (1, 2):
        write(splits, tmp_path / "out", f"{number}/2", samples=10)
    write(splits, tmp_path / "whole", samples=10)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")


def test_more_parts_than_shards(splits, tmp_path):
    for number in range(1, 5):
        result = write(splits, tmp_path / "out", f"{number}/4", samples=100)
    assert result.index.num_samples("train") + result.index.num_samples("val") == 60
    assert "plan" in json.loads((tmp_path / "out/index.json").read_text())["writer"]


@pytest.mark.parametrize("argument", ["", "1", "0/2", "3/2", "1/0", "-1/2", "a/b", "1/2/3"])
def test_parts_of_another_form_are_refused(argument):
    with pytest.raises(ValueError, match="is not I/N with I from 1 to N"):
        Part.parse(argument)
