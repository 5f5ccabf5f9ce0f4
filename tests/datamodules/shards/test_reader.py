import io
import random
import tarfile

import pytest

from multimodal.datamodules.shards.index import ShardIndex
from multimodal.datamodules.shards.reader import RawSample, read_samples
from multimodal.errors import SampleError


@pytest.fixture
def shard(make_shards):
    folder = make_shards(samples_per_shard=100, count=12)
    return folder / ShardIndex.load(folder).shards("train")[0].path


def member(name, data=b"1", kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, "/etc/passwd"
    return info, io.BytesIO(data)


def make_tar(path, *members):
    with tarfile.open(path, "w") as archive:
        for info, data in members:
            archive.addfile(info, data)
    return path


def test_positions_fields_and_names(shard):
    everything = list(read_samples(shard, range(12), 12))
    assert all(sorted(sample.fields) == ["json", "num"] for sample in everything)
    assert all(int(sample.fields["num"]) == int(sample.key[-4:]) for sample in everything)
    some = list(read_samples(shard, [2, 3, 9], 12, wanted={"num"}))
    assert [sample.key for sample in some] == [everything[place].key for place in (2, 3, 9)]
    assert all(list(sample.fields) == ["num"] and sample.names == ("json", "num") for sample in some)


def test_cut_at_every_block_loses_exactly_the_samples_that_are_not_whole(shard):
    data = shard.read_bytes()
    whole = [sample.fields for sample in read_samples(shard, range(12), 12)]
    for length in range(0, len(data) - 1024, 512):
        shard.write_bytes(data[:length])
        results = list(read_samples(shard, range(12), 12))
        good = [result.fields for result in results if isinstance(result, RawSample)]
        complete = max(0, (length - 1) // 2048)  # a sample has 4 blocks; whether it is whole shows in what follows
        assert len(results) == 12
        assert good == whole[: len(good)]
        assert len(good) in (complete, max(0, complete - 1))
        assert f"the index says 12 samples, the shard holds {len(good)}: it is cut off" in str(results[-1])


def test_fewer_samples_than_promised(shard):
    results = list(read_samples(shard, range(10, 14), 14))
    assert [isinstance(result, RawSample) for result in results] == [True, True, False, False]
    assert f"shard {shard}, key 'sample number 12'" in str(results[2])
    assert "the index says 14 samples, the shard holds 12" in results[2].reason


def test_a_missing_shard_is_an_error_for_each_sample(tmp_path):
    (result,) = read_samples(tmp_path / "none.tar", [0], 1)
    assert isinstance(result, SampleError)
    assert "No such file" in str(result)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_only_plain_files_are_read(tmp_path, kind):
    path = make_tar(tmp_path / "x.tar", member("a.num"), member("b.num", b"", kind), member("c.num"))
    first, second, third = read_samples(path, range(3), 3)
    assert (first.key, third.key) == ("a", "c")
    assert isinstance(second, SampleError)
    assert "not a plain file" in second.reason


def test_a_field_twice_and_a_member_without_field(tmp_path):
    path = make_tar(tmp_path / "x.tar", member("a.num"), member("a.NUM"), member("plain"), member("../../b.c.num"))
    twice, plain, odd = read_samples(path, range(3), 3)
    assert str(twice) == f"shard {path}, key 'a', field 'num': the field is there twice."
    assert "'plain' has no extension" in plain.reason
    assert (odd.key, odd.names) == ("../../b", ("c.num",))


def test_a_size_that_lies_allocates_nothing(tmp_path):
    info, _ = member("a.num")
    info.size = 2**40
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    (result,) = read_samples(tmp_path / "x.tar", [0], 1)
    assert "unexpected end of data" in result.reason


def test_random_damage_never_raises(shard):
    data, rng = shard.read_bytes(), random.Random(0)
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 1, 20])):
            damaged[rng.randrange(len(damaged) // 512) * 512 + rng.choice([rng.randrange(512), rng.randrange(160)])] = rng.randrange(256)
        shard.write_bytes(damaged)
        results = list(read_samples(shard, range(12), 12))
        assert len(results) == 12
        assert all(isinstance(result, (RawSample, SampleError)) for result in results)
