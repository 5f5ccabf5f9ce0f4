"""A run that stops anywhere and goes on is the run that did not stop."""

import importlib.util
import json
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
import torch

from tests.ranks import run_script

SCRIPT = Path(__file__).with_name("resume_script.py")
spec = importlib.util.spec_from_file_location("resume_script", SCRIPT)
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

STEPS = 20
KINDS = {
    "plain": {},
    "workers": {"num_workers": 2},
    "accumulating": {"accumulate": 2, "batch_size": 2},
    "averaging": {"ema": True},
    "mixing": {"weights": [1.0, 3.0]},
    "by tokens": {"max_tokens": 60},
}
STOPS = {"plain": range(1, 20), "workers": (3, 10, 17), "accumulating": (2, 9, 10, 15), "averaging": (4, 10, 13)}
CASES = [(kind, stop) for kind in KINDS for stop in STOPS.get(kind, (3, 8, 12, 19))]

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*dataloader.*workers"),
    pytest.mark.filterwarnings("ignore:You are using `torch.load`"),
    pytest.mark.filterwarnings("ignore:.*eval mode"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def shards(folder):
    return [script.make_shards(folder / "one"), script.make_shards(folder / "two", images=5, tunes=3, both=2)]


@pytest.fixture(scope="module")
def whole(folder, shards):
    """Train without a stop, once for each kind of run."""
    done = {}

    def run(kind):
        if kind not in done:
            script.train(shards, str(folder / kind), STEPS, **KINDS[kind])
            done[kind] = folder / kind
        return done[kind]

    return run


def lines(run, name="steps", rank=0):
    path = run / f"{name}.{rank}.jsonl"
    return [json.loads(line) for line in path.open()] if path.exists() else []


def keys(steps):
    return Counter(chain.from_iterable(step["keys"] for step in steps))


def checkpoint(run, step):
    return str(run / "checkpoints" / f"step={step:03d}.ckpt")


def assert_equal_states(one, two):
    for part in ("weights", "optimizer"):
        first, second = (torch.load(run / "final.0.pt", weights_only=True)[part] for run in (one, two))
        for (name, a), (_, b) in zip(flat(first), flat(second), strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, name


def flat(value, name=""):
    if isinstance(value, dict):
        return [item for key, part in value.items() for item in flat(part, f"{name}.{key}")]
    if isinstance(value, list):
        return [item for key, part in enumerate(value) for item in flat(part, f"{name}.{key}")]
    return [(name, value)]


def test_runs_read_every_sample_once_in_an_epoch_and_draw_in_every_step(whole, shards):
    steps = lines(whole("plain"))
    epoch = [step for step in steps if step["epoch"] == 0]
    assert sum(keys(epoch).values()) == 37 + 10
    assert set(keys(epoch).values()) == {1, 2}  # the two sources share some keys
    assert len({tuple(step["draws"]) for step in steps}) == len({step["loss"] for step in steps}) == STEPS


@pytest.mark.parametrize(("kind", "stop"), CASES)
def test_a_stopped_run_goes_on_bit_by_bit(whole, shards, tmp_path, kind, stop):
    run = whole(kind)
    script.train(shards, str(tmp_path), STEPS, checkpoint(run, stop), every=0, **KINDS[kind])
    batches = stop * KINDS[kind].get("accumulate", 1)
    assert lines(tmp_path) == lines(run)[batches:]
    assert_equal_states(tmp_path, run)


@pytest.mark.parametrize("kind", ["plain", "workers", "averaging", "mixing"])
def test_a_run_can_stop_twice(whole, shards, tmp_path, kind):
    run = whole(kind)
    script.train(shards, str(tmp_path / "second"), STEPS, checkpoint(run, 4), **KINDS[kind])
    script.train(shards, str(tmp_path / "third"), STEPS, checkpoint(tmp_path / "second", 7), every=0, **KINDS[kind])
    assert lines(tmp_path / "second") == lines(run)[4:]
    assert lines(tmp_path / "third") == lines(run)[7:]
    assert_equal_states(tmp_path / "third", run)


@pytest.mark.parametrize("change", [{"num_workers": 2}, {"batch_size": 3}, {"batch_size": 7}, {"batch_size": 100}])
def test_with_another_layout_exactly_the_rest_of_the_epoch_is_read(whole, shards, tmp_path, change):
    run = whole("plain")
    script.train(shards, str(tmp_path), STEPS, checkpoint(run, 5), every=0, **change)
    first = [step for step in lines(run) if step["epoch"] == 0]
    rest = [step for step in lines(tmp_path) if step["epoch"] == 0]
    assert keys(first[:5]) + keys(rest) == keys(first)
    following = [step for step in lines(tmp_path) if step["epoch"] == 1]
    if change.get("batch_size", 0) > 4:  # others do not get to the end of it
        assert len(following) == -(-47 // change["batch_size"])
        assert keys(following) == keys(first)


def test_other_data_are_refused(whole, shards, tmp_path, folder):
    other = script.make_shards(tmp_path / "other", images=15)
    with pytest.raises(ValueError, match=r"the data or their order are others: samples of each source: \[37, 10\] then, \[38, 10\] now"):
        script.train([other, shards[1]], str(tmp_path / "run"), STEPS, checkpoint(whole("plain"), 5), every=0)


@pytest.fixture(scope="module")
def two_ranks(folder, shards, whole):
    """Train in two processes: several runs, one after the other."""
    start = checkpoint(whole("plain"), 5)
    one = script.make_shards(folder / "few", images=4, tunes=4, both=3)  # three shards
    runs = {
        "odd": {"shards": shards, "batch_size": 2, "steps": 25, "validate": True},
        "workers": {"shards": shards, "batch_size": 2, "steps": 25, "num_workers": 2},
        "few shards": {"shards": [one], "batch_size": 2, "steps": 4, "num_workers": 3},
        "large batch": {"shards": [one], "batch_size": 64, "steps": 2},
        "weights": {"shards": shards, "batch_size": 2, "steps": 12, "weights": [1.0, 1.0]},
        "by tokens": {"shards": shards, "max_tokens": 60, "steps": 12},
        "from one": {"shards": shards, "batch_size": 2, "steps": 20, "checkpoint": start},
        "from one, other batches": {"shards": shards, "batch_size": 3, "steps": 20, "checkpoint": start, "num_workers": 2},
    }
    cases = [arguments | {"folder": str(folder / "ranks" / name), "devices": 2} for name, arguments in runs.items()]
    run_script(SCRIPT, json.dumps(cases))
    return folder / "ranks"


@pytest.mark.parametrize(("name", "samples"), [("odd", 47), ("workers", 47), ("few shards", 11), ("large batch", 11), ("by tokens", 47)])
def test_two_ranks_have_equal_steps_and_read_every_sample_once(two_ranks, name, samples):
    ranks = [lines(two_ranks / name, rank=rank) for rank in range(2)]
    assert [step["batch"] for step in ranks[0]] == [step["batch"] for step in ranks[1]]
    epoch = [step for rank in ranks for step in rank if step["epoch"] == 0]
    assert sum(keys(epoch).values()) == samples
    seeds = Counter((name, seed) for step in epoch for name, seeds in step["seeds"].items() for seed in seeds)
    assert set(seeds.values()) == {1}  # keys of two sources may be equal, seeds are not


def test_two_ranks_validate_every_sample_once(two_ranks):
    read = keys(step for rank in range(2) for step in lines(two_ranks / "odd", "validation", rank) if step["epoch"] == 0)
    assert sum(read.values()) == 47


def test_steps_of_two_ranks_hold_the_samples_of_one(two_ranks, whole):
    alone = [step for step in lines(whole("plain")) if step["epoch"] == 0]
    ranks = [lines(two_ranks / "odd", rank=rank) for rank in range(2)]
    assert [keys(pair) for pair in zip(*ranks, strict=True)][: len(alone)] == [keys([step]) for step in alone]


@pytest.mark.parametrize("name", ["from one", "from one, other batches"])
def test_two_ranks_go_on_with_exactly_what_one_had_left(two_ranks, whole, name):
    first = [step for step in lines(whole("plain")) if step["epoch"] == 0]
    ranks = [[step for step in lines(two_ranks / name, rank=rank) if step["epoch"] == 0] for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1])
    assert keys(first[:5]) + keys(ranks[0]) + keys(ranks[1]) == keys(first)


def test_one_rank_goes_on_with_exactly_what_two_had_left(two_ranks, shards, tmp_path):
    script.train(shards, str(tmp_path), 20, checkpoint(two_ranks / "odd", 4), every=0)
    ranks = [lines(two_ranks / "odd", rank=rank) for rank in range(2)]
    whole_epoch = keys(step for rank in ranks for step in rank if step["epoch"] == 0)
    read = keys(step for rank in ranks for step in rank[:4]) + keys(step for step in lines(tmp_path) if step["epoch"] == 0)
    assert read == whole_epoch
