import csv
import warnings

import numpy as np
import pytest

from multimodal.datamodules.streaming.bad_samples import BadSamples, BadSampleWarning
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


@pytest.mark.parametrize("read", [100, 2000])
def test_more_bad_samples_than_chance_explains_stop(read):
    share = 0.01
    limit = int(share * read + 5 * (share * (1 - share) * read) ** 0.5)
    bad = BadSamples("skip", share)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bad.count(read, [error()] * limit)
        with pytest.raises(
            ValueError, match=rf"{limit + 1} of {read} samples read could not be used, more than max_bad_fraction=0.01 .*field 'num'"
        ):
            bad.count(0, [error()])


def test_an_allowed_share_stops_no_epoch_of_a_long_run():
    random = np.random.default_rng(0)
    bad = BadSamples("skip", 0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(300):
            bad.start()
            for count in random.binomial(50, 0.007, 40):
                bad.count(50, [error()] * count)
            bad.finish()


def test_the_share_is_looked_at_after_a_hundred_and_at_the_end_of_a_whole_epoch():
    bad = BadSamples("skip", 0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bad.count(99, [error()] * 99)
        with pytest.raises(ValueError, match="99 of 100 samples"):
            bad.count(1, [])
        bad.start()
        bad.count(1, [error()])
        with pytest.raises(ValueError, match="1 of 1 samples"):
            bad.finish()
        bad.start(whole=False)  # goes on near its end
        bad.count(1, [error()])
        bad.finish()
        bad.start()
        bad.finish()


@pytest.mark.parametrize("settings", [{"on_error": "ignore"}, {"max_fraction": 1.5}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises((ValueError, TypeError), match=r"on_error|max_bad_fraction must be"):  # TypeError: types are checked while tests run
        BadSamples(**settings)
