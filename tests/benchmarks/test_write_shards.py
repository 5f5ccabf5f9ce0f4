import pytest

from benchmarks import write_shards


@pytest.fixture
def samples():
    return write_shards.make_samples(1200, 100)


def test_all_three_write_the_same_samples_and_ours_the_same_bytes_again(samples, tmp_path):
    for way in (write_shards.ours, write_shards.by_webdataset, write_shards.by_tarfile):
        assert way(samples, tmp_path) == 1200
    assert len(list(tmp_path.glob("*.tar"))) == 6
    assert "a second run of ours gives the same bytes" in write_shards.check_same(samples, tmp_path)


def test_a_difference_is_noticed(samples, tmp_path):
    for way in (write_shards.ours, write_shards.by_webdataset, write_shards.by_tarfile):
        way(samples, tmp_path)
    samples[3][1]["jpg"] = b"other"
    with pytest.raises(ValueError, match="the shards of ours do not hold the samples"):
        write_shards.check_same(samples, tmp_path)
