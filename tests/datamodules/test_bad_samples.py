import warnings

import pytest

from multimodal.datamodules.bad_samples import BadSamples, BadSampleWarning
from multimodal.errors import SampleError


def error(reason="not a number: 'x'"):
    return SampleError("a.tar", "k", "num", reason)


def test_raise_stops_at_the_first():
    with pytest.raises(SampleError, match="key 'k', field 'num': not a number"):
        BadSamples("raise").count_bad(error())


def test_one_warning_for_each_kind_of_reason():
    bad = BadSamples("skip", 1.0)
    with pytest.warns(BadSampleWarning) as told:
        for reason in ("not a number: 'x'", "not a number: 'y'", "3 bytes too short", "14 bytes too short"):
            bad.count_bad(error(reason))
    assert len(told) == 2


def test_the_limit_holds_after_a_hundred_and_at_the_end():
    bad = BadSamples("skip", 0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bad.count_bad(error())
        bad.count_bad(error())
        for _ in range(97):
            bad.count_good()
        with pytest.raises(ValueError, match=r"2 of 100 samples read could not be used, more than max_bad_fraction=0.01 .*field 'num'"):
            bad.count_good()
        bad.start()
        bad.count_bad(error())
        with pytest.raises(ValueError, match="1 of 1 samples"):
            bad.finish()
        bad.start()
        bad.finish()


@pytest.mark.parametrize("settings", [{"on_error": "ignore"}, {"max_fraction": 1.5}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises((ValueError, TypeError), match=r"on_error|max_bad_fraction must be"):  # TypeError: types are checked while tests run
        BadSamples(**settings)
