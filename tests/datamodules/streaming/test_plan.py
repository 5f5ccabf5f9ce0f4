import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.datamodules.streaming import plan as plan_module
from multimodal.datamodules.streaming.mixture import Mixture
from multimodal.datamodules.streaming.plan import EpochPlan

SIZES = st.lists(st.lists(st.integers(0, 9), max_size=5), min_size=1, max_size=3)
BUFFER = st.sampled_from([0, 1, 2, 7, 100])


def everything(sizes):
    return [(source, shard, place) for source, shards in enumerate(sizes) for shard, size in enumerate(shards) for place in range(size)]


def order(plan, epoch=0, places=None):
    reads = plan.reads(epoch, np.arange(plan.num_samples) if places is None else np.asarray(places))
    return list(zip(reads.source.tolist(), reads.shard.tolist(), reads.position.tolist(), strict=True))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(plan_module, "MERGE_BLOCK", 13)


@given(sizes=SIZES, buffer=BUFFER, seed=st.integers(0, 2**40), epoch=st.integers(0, 10**6))
def test_an_epoch_is_a_permutation_of_all_samples(sizes, buffer, seed, epoch):
    plan = EpochPlan(sizes, train=True, seed=seed, shuffle_buffer=buffer)
    assert sorted(order(plan, epoch)) == everything(sizes)
    assert (plan.reads(epoch, np.arange(plan.num_samples)).turn == epoch).all()


@given(sizes=SIZES, buffer=BUFFER, data=st.data())
def test_any_place_is_found_without_the_ones_before_it(sizes, buffer, data):
    plan = EpochPlan(sizes, train=True, seed=3, shuffle_buffer=buffer)
    places = data.draw(st.lists(st.integers(0, max(0, plan.num_samples - 1)), max_size=20)) if plan.num_samples else []
    whole = order(plan, 5)
    assert order(plan, 5, places) == [whole[place] for place in places]


@given(sizes=SIZES)
def test_evaluation_goes_through_the_shards_as_they_lie(sizes):
    plan = EpochPlan(sizes, train=False, seed=7)
    assert order(plan) == order(plan, 3) == everything(sizes)


def test_epochs_and_seeds_differ_and_repeat():
    def drawn(seed, epoch):
        return order(EpochPlan([[50] * 4, [30] * 3], train=True, seed=seed), epoch)

    assert drawn(1, 0) == drawn(1, 0)
    assert drawn(1, 0) != drawn(1, 1)
    assert drawn(1, 0) != drawn(2, 0)


@pytest.mark.parametrize(("buffer", "most"), [(100, 3), (200, 4), (1000, 11)])
def test_only_the_shards_of_one_buffer_are_read_from_at_a_time(buffer, most):
    read = order(EpochPlan([[50] * 40], train=True, shuffle_buffer=buffer))
    for start in range(0, 2000, buffer):
        assert len({shard for _, shard, _ in read[start : start + buffer]}) == min(40, buffer // 50)
    assert max(len({shard for _, shard, _ in read[start : start + 50]}) for start in range(0, 1950)) > most - 1


def test_a_buffer_of_one_shuffles_whole_shards_only():
    read = order(EpochPlan([[5] * 8], train=True, seed=1, shuffle_buffer=1))
    assert [place for _, _, place in read] == list(range(5)) * 8
    assert [shard for _, shard, _ in read][::5] != list(range(8))


def test_samples_are_well_mixed():
    read = order(EpochPlan([[100] * 100], train=True, shuffle_buffer=10_000))
    ranks = np.array([shard * 100 + place for _, shard, place in read])
    assert abs(np.corrcoef(ranks, np.arange(10_000))[0, 1]) < 0.05
    assert abs(np.corrcoef(ranks[1:], ranks[:-1])[0, 1]) < 0.05


def test_sources_are_mixed_in_proportion_all_along(monkeypatch):
    monkeypatch.setattr(plan_module, "MERGE_BLOCK", 400)
    plan = EpochPlan([[300] * 10, [100] * 10], train=True)
    source = plan.reads(3, np.arange(4000)).source.reshape(-1, 200)
    share = (source == 0).mean(1)
    assert ((share > 0.6) & (share < 0.9)).all()  # 0.75 +- 4.9 standard errors


@given(sizes=st.lists(st.integers(1, 30), min_size=2, max_size=4), data=st.data())
def test_a_weighted_source_is_read_on_pass_after_pass(sizes, data):
    weights = data.draw(st.lists(st.floats(0.1, 10), min_size=len(sizes), max_size=len(sizes)))
    plan = EpochPlan([[size] for size in sizes], train=True, seed=1, shuffle_buffer=7, mixture=Mixture(weights, samples_per_epoch=50))
    seen = [dict() for _ in sizes]
    for epoch in range(4):
        reads = plan.reads(epoch, np.arange(50))
        assert np.bincount(reads.source, minlength=len(sizes)).tolist() == plan.counts
        for source, turn, _, position in zip(*(part.tolist() for part in reads), strict=True):
            seen[source].setdefault(turn, []).append(position)
    for size, turns in zip(sizes, seen, strict=True):
        numbers = sorted(turns)
        assert numbers == list(range(len(numbers)))
        assert all(sorted(turns[number]) == list(range(size)) for number in numbers[:-1])  # each sample once in each pass
        assert all(len(set(turns[number])) == len(turns[number]) for number in numbers)


def test_a_plan_travels_to_other_processes():
    plan = EpochPlan([[5, 6], [7]], train=True, seed=2, mixture=Mixture([1.0, 3.0]))
    assert order(pickle.loads(pickle.dumps(plan)), 4) == order(plan, 4)


@pytest.mark.parametrize(("name", "value"), [("seed", -1), ("shuffle_buffer", -1)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        EpochPlan([[1]], train=True, **{name: value})
