"""The order of samples: equal for a seed, whoever reads it; each sample once; damaged ones counted."""

import json
import multiprocessing
import os
import signal
import tempfile
import time
import warnings
from collections import Counter

import pytest
import torch
from torch.utils.data import get_worker_info

from multimodal.datamodules.shard_datamodule import ShardDataModule
from multimodal.datamodules.streaming.bad_samples import BadSamples, BadSampleWarning
from multimodal.datamodules.streaming.mixture import Mixture
from multimodal.datamodules.streaming.stream import EpochLoader


@pytest.fixture
def make_loader(transforms):
    """Return the loader of one of several ranks."""

    def make(folders, rank=0, world_size=1, **settings):
        module = ShardDataModule(folders, transforms, **({"batch_size": 4, "shuffle_buffer": 20} | settings))
        trainer = {"global_rank": rank, "world_size": world_size, "current_epoch": 0, "default_root_dir": tempfile.mkdtemp()}
        module.trainer = type("Trainer", (), trainer)()
        loader = module.train_dataloader()
        loader.epoch_of = None  # iterations are counted
        return loader

    return make


def epochs(loader, count=3):
    return [[list(batch.keys) for batch in loader] for _ in range(count)]


def read_epochs(loader, persistent, count=3):
    """Read as the loader does, or with workers that start anew for each epoch."""
    if persistent or loader.num_workers == 0:
        return epochs(loader, count)
    fresh = EpochLoader(loader.dataset, BadSamples(), num_workers=loader.num_workers, persistent_workers=False)
    return epochs(fresh, count)


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
def test_the_order_depends_on_seed_and_epoch_only(make_shards, make_loader, num_workers, persistent):
    folder = str(make_shards(count=45))
    expected = epochs(make_loader(folder))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    loader = make_loader(folder, num_workers=num_workers)
    process = context.Process(target=lambda: queue.put(read_epochs(loader, persistent)))  # a process that has read nothing yet
    process.start()
    assert queue.get(timeout=60) == expected
    process.join()
    flat = [[key for batch in epoch for key in batch] for epoch in expected]
    assert all(len(epoch) == len(set(epoch)) == 45 for epoch in flat)
    assert len(set(map(tuple, flat))) == 3


@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_a_step_holds_the_same_samples_however_many_ranks_and_workers_there_are(make_shards, make_loader, world_size, num_workers):
    folder = str(make_shards(count=53))
    alone = epochs(make_loader(folder, batch_size=8), 2)
    settings = {"batch_size": 8 // world_size, "num_workers": num_workers}
    ranks = [epochs(make_loader(folder, rank, world_size, **settings), 2) for rank in range(world_size)]
    for epoch in range(2):
        steps = list(zip(*(rank[epoch] for rank in ranks), strict=True))  # strict: ranks have equal steps
        assert [Counter(key for batch in step for key in batch) for step in steps] == [Counter(batch) for batch in alone[epoch]]


def test_every_source_keeps_its_share_in_a_mixture(make_shards, make_loader):
    folders = [str(make_shards("one", count=40)), str(make_shards("two", count=20, first=100))]
    loader = make_loader(folders, mixture=Mixture([1.0, 1.0]), batch_size=60)
    (first,), (second,) = epochs(loader, 2)
    for epoch in (first, second):
        assert sum(key[-4:] >= "0100" for key in epoch) == 30
    assert set(key for key in first + second if key[-4:] < "0100") == {f"c{number % 4}/{number:04d}" for number in range(40)}  # 60 draws
    assert sorted(Counter(key for key in first + second if key[-4:] >= "0100").values()) == [3] * 20


@pytest.fixture
def damaged(make_source, tmp_path):
    """Write 1,000 numbers, some of which cannot be decoded; return the folder of the shards and the damaged keys."""

    def make(bad):
        from multimodal.datamodules.commands import main

        source = make_source(count=1000)
        paths = sorted(source.rglob("*.num"))[:: 1000 // bad][:bad]
        for path in paths:
            path.write_text("bad")
        assert main(["write", str(source), "--to", str(tmp_path / "shards"), "--split", "train=1", "--samples-per-shard", "100"]) == 0
        return str(tmp_path / "shards"), {path.relative_to(source).with_suffix("").as_posix() for path in paths}

    return make


@pytest.mark.parametrize(("bad", "limit"), [(1, 0.01), (10, 0.05), (200, 0.5)])
def test_bad_samples_are_left_out_counted_and_listed_alike_on_every_rank_and_run(damaged, make_loader, tmp_path, bad, limit):
    folder, expected = damaged(bad)
    seen = []
    for run in range(2):
        missing = set(expected)
        for rank in range(2):
            loader = make_loader(folder, rank, 2, batch_size=10, on_error="skip", max_bad_fraction=limit, num_workers=run)
            loader.bad.listing = tmp_path / f"{run}.csv"
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                good = {key for batch in loader for key in batch.keys}
            assert (len(good), loader.bad.read) == (500 - loader.bad.bad, 500)
            assert dict(loader.bad.reasons) in ({}, {"num: not a number: b_": loader.bad.bad})
            about = [warning for warning in told if warning.category is BadSampleWarning]
            assert len(about) == (2 if loader.bad.bad else 0)  # one for the reason, one for the epoch
            missing -= good
        assert missing == expected
        seen.append(sorted(line.split(",")[1] for line in (tmp_path / f"{run}.csv").read_text().splitlines()))
    assert seen[0] == seen[1] == sorted(expected)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.filterwarnings("ignore::multimodal.datamodules.streaming.bad_samples.BadSampleWarning")
def test_only_bad_samples_stop_the_run(damaged, make_loader, num_workers):
    folder, _ = damaged(1000)
    loader = make_loader(folder, on_error="skip", max_bad_fraction=0.9, num_workers=num_workers)
    with pytest.raises(
        ValueError, match=r"100 of 100 samples read could not be used, more than max_bad_fraction=0.9 allows; the last: shard"
    ):
        epochs(loader, 1)


def test_a_batch_of_bad_samples_is_empty_and_steps_stay_equal(damaged, make_loader):
    folder, _ = damaged(1000)
    loader = make_loader(folder, on_error="skip", max_bad_fraction=1.0, batch_size=100)
    with pytest.warns(BadSampleWarning):
        batches = list(loader)
    assert len(batches) == len(loader) == 10
    assert all(batch.num_samples == 0 and batch.items == {} for batch in batches)


class SuicidalTransform:
    """Ends its worker at the twelfth number, as a system short of memory would."""

    extensions = ("num",)

    def decode(self, data):
        return float(data)

    def __call__(self, decoded, generator, train):
        from multimodal.batch import Item

        if decoded == 12 and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return Item(torch.tensor([decoded]))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_worker_that_is_killed_is_named_with_its_shard_and_nothing_hangs(make_shards, transforms, num_workers):
    dying = type("Dying", (SuicidalTransform, type(transforms["number"])), {"decode": SuicidalTransform.decode})()
    module = ShardDataModule(str(make_shards(count=45)), {"number": dying}, 4, num_workers)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"a worker has died: .* Worker \d was reading shard .*train-00000\d\.tar"):
        list(module.train_dataloader())
    assert time.monotonic() - start < 30


def test_the_state_is_a_few_numbers(make_shards, make_loader):
    loader = make_loader([str(make_shards("one", count=40)), str(make_shards("two", count=20, first=100))])
    next(iter(loader))
    state = json.dumps(loader.state_dict())
    assert len(state) < 500
    assert json.loads(state)["place"] == 4


def test_a_loader_without_a_trainer_goes_on_too(make_shards, make_loader):
    folder = str(make_shards(count=45))
    whole = epochs(make_loader(folder), 3)
    loader = make_loader(folder)
    list(loader)
    iterator = iter(loader)
    read = [list(next(iterator).keys) for _ in range(3)]
    state = loader.state_dict()
    other = make_loader(folder, num_workers=2)
    other.load_state_dict(state)
    assert read + epochs(other, 1)[0] == whole[1]
    assert epochs(other, 1)[0] == whole[2]
