"""Shards that went bad on their way: flipped bits and cut-off files. Nothing is lost without a word, nothing crashes, nothing hangs."""

import faulthandler
import json
import random

import pytest

from multimodal.batch import Sample
from multimodal.datamodules.checking.decoders import load_decoders
from multimodal.datamodules.checking.verify import open_index, verify_shards
from multimodal.datamodules.shards.members import members
from multimodal.datamodules.shards.reader import RawSample, read_samples
from multimodal.datamodules.streaming.bad_samples import BadSamples
from multimodal.datamodules.streaming.preparation import SamplePreparation
from multimodal.errors import SampleError

FLIPS = 500
BLOCK = 512


@pytest.fixture(autouse=True)
def a_hang_ends_the_run():
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="module")
def preparation():
    """What training does with a sample, for every kind of file that something reads."""
    transforms = {type(transform).__name__: transform for transform in load_decoders().transforms.values()}
    assert transforms
    return SamplePreparation(transforms, ["a"], seed=0, train=True)


@pytest.fixture
def zoo(pack, media):
    """One sample for each kind of file."""
    metadata = json.dumps({"label": "a", "words": "x" * 300}).encode()
    return pack({"train": [(f"a/{name}", {name: data, "json": metadata}) for name, data in media.items()]}) / "train-000000.tar"


def places(path):
    """Kind of byte -> where bytes of that kind are in the shard."""
    with path.open("rb") as file:
        found = list(members(file.fileno()))
    size = path.stat().st_size
    kinds = {"header": [place for member in found for place in range(member.offset - BLOCK, member.offset)]}
    ends = [member.offset + member.size for member in found]
    kinds["padding"] = [place for end in ends for place in range(end, end + -end % BLOCK)]
    kinds["end"] = list(range(size - 2 * BLOCK, size))
    for member in found:
        name = member.name.rpartition(".")[-1]
        kinds.setdefault(name, []).extend(range(member.offset, member.offset + member.size))
    return kinds


def noticed(folder):
    found = []
    verify_shards(open_index(folder), found.append)
    return found


def test_the_kinds_of_bytes_cover_the_shard(zoo):
    kinds = places(zoo)
    assert sorted(place for found in kinds.values() for place in found) == list(range(zoo.stat().st_size))
    assert {"header", "padding", "end", "png", "jpg", "wav", "flac", "ogg", "mp4", "avi", "mid", "json", "npy"} <= kinds.keys()


def test_every_flipped_bit_is_noticed_and_training_gets_a_sample_or_an_error_that_names_it(zoo, preparation):
    data, kinds, rng = zoo.read_bytes(), places(zoo), random.Random(0)
    good = list(read_samples(zoo, range(99), 99))[: len(open_index(zoo.parent).fields) - 1]
    results_of = {kind: [] for kind in sorted(kinds)}
    for number in range(FLIPS):
        kind = list(results_of)[number % len(results_of)]
        damaged = bytearray(data)
        damaged[rng.choice(kinds[kind])] ^= 1 << rng.randrange(8)
        zoo.write_bytes(damaged)
        assert noticed(zoo.parent), f"flip {number} in {kind}"
        results = list(read_samples(zoo, range(len(good)), len(good)))
        assert len(results) == len(good)
        results_of[kind] += [trained_on(result, preparation) for result in results if result not in good]
    results = [result for found in results_of.values() for result in found]
    assert not results_of["padding"]  # nobody reads it, so it does no harm
    assert all(isinstance(result, SampleError) for result in results_of["end"])  # without an end the last sample may be cut off
    assert len(results) >= FLIPS // len(results_of) * (len(results_of) - 2)
    for result in results:
        assert isinstance(result, Sample) or (result.shard == str(zoo) and result.key and result.field and result.reason)
    assert all(isinstance(result, SampleError) for result in results_of["png"])  # its checksums see every flip
    assert all("the index says" in result.reason for result in results_of["header"] if result.key.startswith("sample number"))


def trained_on(result, preparation):
    if isinstance(result, SampleError):
        return result
    try:
        sample = preparation(result, 0, 0)
    except SampleError as error:
        return error
    for item in sample.items.values():
        assert item.values.is_floating_point() is False or bool(item.values.isfinite().all())
    return sample


def test_a_shard_cut_at_any_block_loses_exactly_what_is_counted(pack, numbers):
    samples = [(key, {"bin": fields["bin"] * 7}) for key, fields in numbers]  # three blocks each
    folder = pack({"train": samples})
    path = folder / "train-000000.tar"
    data = path.read_bytes()
    blocks = range(0, 60 * BLOCK, BLOCK)
    assert len(data) >= blocks[-1] + BLOCK
    for length in blocks:
        path.write_bytes(data[:length])
        results = list(read_samples(path, range(20), 20))
        good = [result for result in results if isinstance(result, RawSample)]
        lost = [result for result in results if isinstance(result, SampleError)]
        assert len(good) + len(lost) == 20
        sure = sum(3 * BLOCK * number + BLOCK + 700 <= length for number in range(1, 20))  # a next one follows, so nothing of it is missing
        assert [(sample.key, sample.fields) for sample in good] == samples[:sure]
        assert all(f"the index says 20 samples, the shard holds {len(good)}" in error.reason for error in lost)
        counted = BadSamples("skip", max_fraction=1)
        with pytest.warns(UserWarning, match=f"the shard holds {len(good)}"):
            counted.count(20, lost)
        assert (counted.read, counted.bad) == (20, 20 - len(good))
        with pytest.raises(SampleError, match=f"the index says 20 samples, the shard holds {len(good)}"):
            BadSamples("raise").count(20, lost)
        told = [problem.reason for problem in noticed(folder)]
        assert f"{length} bytes; the index says {len(data)}." in told
        assert f"{len(good)} samples; the index says 20." in told
