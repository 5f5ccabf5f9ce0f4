import pytest

from multimodal.datamodules.writing.sources import SplitRule, arrange, scan_folder
from multimodal.datamodules.writing.write_plan import ShardLimits, parse_size, plan_identity, plan_shards


@pytest.fixture
def splits(make_source):
    return arrange(scan_folder(make_source(count=23)), SplitRule({"train": 1.0}))


def test_each_sample_is_in_one_shard_in_order(splits):
    shards = plan_shards(splits, ShardLimits(5), "raise")
    assert [shard.path for shard in shards] == [f"train-{number:06d}.tar" for number in range(5)]
    assert [len(shard.samples) for shard in shards] == [5, 5, 5, 5, 3]
    assert [sample for shard in shards for sample in shard.samples] == splits["train"]


def test_both_limits_hold(splits):
    size = splits["train"][0].size
    assert {len(shard.samples) for shard in plan_shards(splits, ShardLimits(4, 3 * size), "raise")[:-1]} == {3}
    assert {len(shard.samples) for shard in plan_shards(splits, ShardLimits(2, 3 * size), "raise")[:-1]} == {2}
    assert {len(shard.samples) for shard in plan_shards(splits, ShardLimits(None, 1), "raise")} == {1}


def test_the_plan_of_a_shard_follows_its_files(splits, tmp_path):
    before = plan_shards(splits, ShardLimits(5), "raise")[0].plan
    assert before == plan_shards(splits, ShardLimits(5), "raise")[0].plan
    assert before != plan_shards(splits, ShardLimits(5), "skip")[0].plan
    assert before != plan_shards(splits, ShardLimits(4), "raise")[0].plan
    path = next((tmp_path / "source").rglob(splits["train"][0].key + ".num"))
    path.write_text(path.read_text())
    again = arrange(scan_folder(tmp_path / "source"), SplitRule({"train": 1.0}))
    assert before != plan_shards(again, ShardLimits(5), "raise")[0].plan


def test_the_identity_does_not_depend_on_place_and_time(make_source, tmp_path):
    identities = set()
    for name in ("one", "two"):
        splits = arrange(scan_folder(make_source(name)), SplitRule({"train": 1.0}))
        identities.add(plan_identity(splits, {"a": 1}))
    assert len(identities) == 1
    assert plan_identity(splits, {"a": 2}) not in identities
    (tmp_path / "two/c0/0000.num").write_text("longer")
    changed = arrange(scan_folder(tmp_path / "two"), SplitRule({"train": 1.0}))
    assert plan_identity(changed, {"a": 1}) not in identities


@pytest.mark.parametrize(
    ("argument", "size"),
    [("256MB", 256_000_000), ("1.5g", 1_500_000_000), ("100 MiB", 104_857_600), ("77", 77), ("2k", 2000), ("3KiB", 3072)],
)
def test_sizes(argument, size):
    assert parse_size(argument) == size


@pytest.mark.parametrize("argument", ["", "x", "-1MB", "1TB", "1e9", "MB", "1 2"])
def test_sizes_of_another_form_are_refused(argument):
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(argument)


@pytest.mark.parametrize(
    ("limits", "message"), [((None, None), "needs a limit"), ((0, None), "samples-per-shard must be"), ((None, 0), "shard-size")]
)
def test_limits_must_be_there_and_positive(limits, message):
    with pytest.raises(ValueError, match=message):
        ShardLimits(*limits)
