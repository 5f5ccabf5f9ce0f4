import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.datamodules.streaming.batching import FixedBatches, TokenBatches


def steps_of(batching, epoch=0):
    return np.diff(batching.bounds(epoch)).reshape(-1, batching.world_size)


@given(num_samples=st.integers(0, 300), world_size=st.integers(1, 4), batch_size=st.integers(1, 9))
def test_every_place_is_in_one_batch_and_ranks_have_equal_steps(num_samples, world_size, batch_size):
    batching = FixedBatches(num_samples, world_size, batch_size)
    bounds = batching.bounds(0)
    sizes = steps_of(batching)
    assert len(sizes) == batching.num_steps == -(-num_samples // (world_size * batch_size))
    assert (bounds[0], bounds[-1]) == (0, num_samples)
    assert (sizes >= 0).all() and (sizes <= batch_size).all()
    assert (sizes[:-2] == batch_size).all()
    assert (np.ptp(sizes, axis=1) <= 1).all()
    if len(sizes) > 1 and batch_size > 1:
        assert (sizes > 0).all()  # no rank ever waits for a batch without samples


@given(num_samples=st.integers(0, 300), batch_size=st.integers(1, 9))
def test_a_step_does_not_depend_on_the_number_of_ranks(num_samples, batch_size):
    steps = [FixedBatches(num_samples, ranks, batch_size * 4 // ranks).bounds(0)[::ranks].tolist() for ranks in (1, 2, 4)]
    assert steps[0] == steps[1] == steps[2]


def test_the_rest_can_be_dropped():
    assert steps_of(FixedBatches(29, 2, 3, drop_last=True)).tolist() == [[3, 3]] * 4
    assert FixedBatches(5, 2, 3, drop_last=True).num_steps == 0


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=200),
    world_size=st.integers(1, 4),
    spare=st.integers(0, 300),
    seed=st.integers(0, 9),
)
def test_batches_keep_the_limit_of_tokens_in_any_order(lengths, world_size, spare, seed):
    lengths = np.asarray(lengths)
    longest = int(lengths.max())
    limit = 2 * max(1, longest) + spare

    def order(epoch):
        return np.random.default_rng([seed, epoch]).permutation(lengths)

    batching = TokenBatches(len(lengths), world_size, order, int(lengths.sum()), longest, limit)
    for epoch in range(3):
        bounds = batching.bounds(epoch)
        assert len(bounds) == batching.num_steps * world_size + 1
        assert (bounds[0], bounds[-1]) == (0, len(lengths))
        assert (np.diff(bounds) >= 0).all()
        tokens = np.add.reduceat(np.append(order(epoch), 0), bounds[:-1])[np.diff(bounds) > 0]
        assert (tokens <= limit).all()


def test_batches_of_tokens_are_full_and_even():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 101, 10_000)
    batching = TokenBatches(10_000, 4, lambda _: lengths, int(lengths.sum()), 100, 4096)
    tokens = np.add.reduceat(lengths, batching.bounds(0)[:-1])
    assert tokens.max() <= 4096
    assert tokens.mean() > 0.96 * 4096
    assert tokens.std() < 0.02 * 4096


@given(num_samples=st.integers(1, 100), world_size=st.integers(1, 3), batch_size=st.integers(1, 9), data=st.data())
def test_the_step_of_a_place(num_samples, world_size, batch_size, data):
    batching = FixedBatches(num_samples, world_size, batch_size)
    place = data.draw(st.integers(0, num_samples))
    step = batching.step_of(0, place)
    ends = batching.bounds(0)[::world_size]
    assert step == batching.num_steps if place == num_samples else ends[step] <= place < ends[step + 1]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FixedBatches(5, 0, 1), "world_size must be at least 1, got 0"),
        (lambda: FixedBatches(5, 1, 0), "batch_size must be at least 1, got 0"),
        (lambda: TokenBatches(2, 1, lambda _: np.array([3, 9]), 12, 9, 17), "max_tokens 17 must be at least twice .* longest sample, 9"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
