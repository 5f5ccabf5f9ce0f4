import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.datamodules.plan import EpochPlan, shuffled

SIZES = st.lists(st.lists(st.integers(0, 9), max_size=5), min_size=1, max_size=3)
LAYOUT = {"batch_size": st.integers(1, 5), "world_size": st.sampled_from([1, 2, 3]), "num_workers": st.sampled_from([0, 1, 2, 3])}


def everything(sizes):
    return {(source, shard, place) for source, shards in enumerate(sizes) for shard, size in enumerate(shards) for place in range(size)}


def read_by_all(plan, epoch=0):
    workers = range(max(1, plan.num_workers))
    return {
        (rank, worker): list(zip(*(part.tolist() for part in plan.reads(epoch, rank, worker)), strict=True))
        for rank in range(plan.world_size)
        for worker in workers
    }


@given(sizes=SIZES, seed=st.integers(0, 2**40), epoch=st.integers(0, 10**6), **LAYOUT)
def test_training_reads_no_sample_twice_and_as_much_on_every_rank(sizes, seed, epoch, batch_size, world_size, num_workers):
    plan = EpochPlan(sizes, batch_size, train=True, seed=seed, world_size=world_size, num_workers=num_workers)
    reads = read_by_all(plan, epoch)
    flat = [read for reads_of_worker in reads.values() for read in reads_of_worker]
    steps = len(everything(sizes)) // (batch_size * world_size)
    assert len(flat) == len(set(flat)) == steps * batch_size * world_size
    assert set(flat) <= everything(sizes)
    assert [len(plan.batches(rank)) for rank in range(world_size)] == [steps] * world_size
    for (rank, worker), reads_of_worker in reads.items():
        assert len(reads_of_worker) == len(plan.worker_batches(rank, worker)) * batch_size


@given(sizes=SIZES, **LAYOUT)
def test_evaluation_reads_every_sample_once_in_an_order_free_of_workers_and_ranks(sizes, batch_size, world_size, num_workers):
    plan = EpochPlan(sizes, batch_size, train=False, world_size=world_size, num_workers=num_workers)
    alone = EpochPlan(sizes, batch_size, train=False, seed=5)
    reads, expected = read_by_all(plan), read_by_all(alone)[0, 0]
    assert sorted(expected) == sorted(everything(sizes))
    batches = [expected[start : start + batch_size] for start in range(0, len(expected), batch_size)]
    for (rank, worker), reads_of_worker in reads.items():
        assert reads_of_worker == [read for number in plan.worker_batches(rank, worker) for read in batches[number]]
    assert [number for rank in range(world_size) for number in plan.batches(rank)] == list(range(len(batches)))


@given(sizes=SIZES, **LAYOUT)
def test_reading_goes_forward_through_each_shard(sizes, batch_size, world_size, num_workers):
    plan = EpochPlan(sizes, batch_size, train=True, world_size=world_size, num_workers=num_workers)
    for reads in read_by_all(plan).values():
        for source in range(len(sizes)):
            own = [(shard, place) for number, shard, place in reads if number == source]
            steps_back = sum(before[0] == after[0] and after[1] != before[1] + 1 for before, after in zip(own, own[1:], strict=False))
            assert steps_back <= 1  # only where the tape, which starts at a random place, wraps inside a lone shard


def test_epochs_and_seeds_differ_and_repeat():
    def order(seed, epoch):
        return read_by_all(EpochPlan([[50] * 4, [30] * 3], 10, train=True, seed=seed), epoch)[0, 0]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_the_dropped_rest_differs_by_epoch_even_of_a_lone_shard():
    plan = EpochPlan([[103]], 10, train=True)
    rests = {frozenset(everything([[103]]) - set(read_by_all(plan, epoch)[0, 0])) for epoch in range(8)}
    assert all(len(rest) == 3 for rest in rests)
    assert len(rests) > 4


def test_sources_are_mixed_in_proportion_all_along():
    plan = EpochPlan([[300] * 10, [100] * 10], 50, train=True, num_workers=2)
    for worker in range(2):
        source = plan.reads(epoch=3, worker=worker).source.reshape(-1, 200)
        share = (source == 0).mean(1)
        assert ((share > 0.6) & (share < 0.9)).all()  # 0.75 +- 4.9 standard errors


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("world_size", 0), ("seed", -1), ("num_workers", -1)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        EpochPlan([[1]], **({"batch_size": 1, "train": True} | {name: value}))


@given(count=st.integers(0, 60), buffer_size=st.integers(0, 70))
def test_shuffled_keeps_all_and_repeats_for_a_seed(count, buffer_size):
    first, second = (list(shuffled(range(count), buffer_size, np.random.default_rng(3))) for _ in range(2))
    assert first == second
    assert sorted(first) == list(range(count))
    if buffer_size < 2:
        assert first == list(range(count))
    assert all(place + buffer_size >= item for place, item in enumerate(first))  # nothing comes before it was read


def test_shuffled_changes_the_order():
    assert list(shuffled(range(100), 10, np.random.default_rng(0))) != list(range(100))
