import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.datamodules.streaming.mixture import Mixture


def test_by_default_every_sample_comes_once():
    assert Mixture().counts([5, 0, 70]) == [5, 0, 70]


def test_weights_share_the_epoch():
    assert Mixture([1.0, 3.0]).counts([50, 50]) == [25, 75]
    assert Mixture([1.0, 3.0], samples_per_epoch=10).counts([50, 50]) == [3, 7]  # 2.5 : 7.5, the first of equal remainders


def test_a_temperature_makes_sources_more_equal():
    assert Mixture(temperature=2.0).counts([100, 400]) == [167, 333]  # 10 : 20
    assert Mixture(temperature=1e9).counts([100, 400]) == [250, 250]


@given(sizes=st.lists(st.integers(0, 1000), min_size=1, max_size=6), temperature=st.floats(1, 100), total=st.integers(1, 5000))
def test_counts_add_up_and_empty_sources_get_none(sizes, temperature, total):
    counts = Mixture(temperature=temperature, samples_per_epoch=total).counts(sizes)
    assert sum(counts) == (total if sum(sizes) else 0)
    assert all(count == 0 for count, size in zip(counts, sizes, strict=True) if size == 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": [1.0, 0.0]}, "weights must be positive"),
        ({"weights": []}, "weights must be positive"),
        ({"temperature": 0.5}, "temperature must be at least 1"),
        ({"weights": [1.0], "temperature": 2.0}, "either weights or a temperature"),
        ({"samples_per_epoch": 0}, "samples_per_epoch must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Mixture(**settings)


def test_a_weight_for_each_source():
    with pytest.raises(ValueError, match="2 weights for 3 sources"):
        Mixture([1.0, 2.0]).counts([1, 2, 3])
