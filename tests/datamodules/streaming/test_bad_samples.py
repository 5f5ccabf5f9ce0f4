import csv
import math
import warnings

import numpy as np
import pytest

from multimodal.datamodules.streaming.bad_samples import BadSamples, BadSampleWarning, _chance
from multimodal.errors import SampleError


def error(reason="not a number: 'x'", key="k"):
    return SampleError("a.tar", key, "num", reason)


def test_raise_stops_at_the_first():
    with pytest.raises(SampleError, match="key 'k', field 'num': not a number"):
        BadSamples("raise").count(4, [error(), error("other")])


def test_one_warning_for_each_kind_of_reason_and_a_summary():
    bad = BadSamples("skip", 1.0)
    with pytest.warns(BadSampleWarning) as told:
        bad.count(10, [error(reason) for reason in ("not a number: 'x'", "not a number: 'y'", "3 bytes too short", "14 bytes too short")])
    assert len(told) == 2
    with pytest.warns(BadSampleWarning, match=r"left out 4 of the 10 samples .* 2 x num: not a number: _; 2 x num: _ bytes too short$"):
        bad.finish()


def test_bad_samples_are_listed_once(tmp_path):
    bad = BadSamples("skip", 1.0, tmp_path / "run" / "bad.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):  # epochs
            bad.start()
            bad.count(5, [error(key="a"), error('says "no",\nreally', key="b")])
    rows = list(csv.reader((tmp_path / "run" / "bad.csv").open(newline="")))
    assert rows == [["a.tar", "a", "num", "not a number: 'x'"], ["a.tar", "b", "num", 'says "no",\nreally']]


@pytest.mark.parametrize(("share", "read", "allowed"), [(0.01, 100, 7), (0.01, 2000, 41), (0.5, 100, 71), (0.9, 100, 99), (0.0, 100, 0)])
def test_within_an_epoch_more_bad_samples_than_chance_explains_stop(share, read, allowed):
    """The numbers are the largest k whose Chernoff bound exp(-n KL(k / n || share)) is at least 1e-4, by hand."""
    bad = BadSamples("skip", share)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bad.count(read, [error()] * allowed)
        with pytest.raises(
            ValueError, match=rf"{allowed + 1} of {read} samples read could not be used, more than max_bad_fraction={share:g} .*field 'num'"
        ):
            bad.count(0, [error()])


def test_chance_is_not_below_what_it_bounds():
    for bad, read, share in ((3, 100, 0.01), (8, 100, 0.01), (60, 100, 0.5), (100, 100, 0.9)):
        exact = sum(math.comb(read, k) * share**k * (1 - share) ** (read - k) for k in range(bad, read + 1))
        assert exact <= _chance(bad, read, share) * (1 + 1e-9) and _chance(bad, read, share) <= 10 * exact


def test_an_allowed_share_stops_no_epoch_of_a_long_run():
    random = np.random.default_rng(0)
    bad = BadSamples("skip", 0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(300):
            bad.start()
            for count in random.binomial(50, 0.003, 40):
                bad.count(50, [error()] * count)
            bad.finish()


def test_the_limit_is_exact_at_the_end_of_an_epoch():
    bad = BadSamples("skip", 0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bad.count(100, [error()])
        bad.finish()
        bad.start()
        bad.count(100, [error(), error()])
        with pytest.raises(ValueError, match=r"2 of 100 samples read could not be used, more than max_bad_fraction=0.01 .*field 'num'"):
            bad.finish()
        bad.start()
        bad.count(1, [error()])
        with pytest.raises(ValueError, match="1 of 1 samples"):
            bad.finish()
        bad.start()
        bad.finish()


def test_an_epoch_that_goes_on_near_its_end_is_judged_as_one_that_is_not_over():
    bad = BadSamples("skip", 0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bad.start(whole=False)
        bad.count(1, [error()])
        bad.finish()
        bad.start(whole=False)
        bad.count(99, [error()] * 99)
        with pytest.raises(ValueError, match="99 of 100 samples"):
            bad.count(1, [])


@pytest.mark.parametrize("settings", [{"on_error": "ignore"}, {"max_fraction": 1.5}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises((ValueError, TypeError), match=r"on_error|max_bad_fraction must be"):  # TypeError: types are checked while tests run
        BadSamples(**settings)
