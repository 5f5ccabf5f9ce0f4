import csv
import warnings

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


def test_the_limit_holds_after_a_hundred_and_at_the_end():
    bad = BadSamples("skip", 0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bad.count(99, [error(), error()])
        with pytest.raises(ValueError, match=r"2 of 100 samples read could not be used, more than max_bad_fraction=0.01 .*field 'num'"):
            bad.count(1, [])
        bad.start()
        bad.count(1, [error()])
        with pytest.raises(ValueError, match="1 of 1 samples"):
            bad.finish()
        bad.start()
        bad.finish()


@pytest.mark.parametrize("settings", [{"on_error": "ignore"}, {"max_fraction": 1.5}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises((ValueError, TypeError), match=r"on_error|max_bad_fraction must be"):  # TypeError: types are checked while tests run
        BadSamples(**settings)
