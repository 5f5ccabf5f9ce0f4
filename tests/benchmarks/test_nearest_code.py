"""The comparison of nearest codes times only what finds them."""

import pytest
import torch

from benchmarks.nearest_code import check, counted, drawn, finders_of


@pytest.mark.parametrize("unit", [True, False])
def test_what_is_timed_finds_the_nearest_codes(unit):
    vectors, codes = drawn(50, 8, unit, 0), drawn(300, 8, unit, 1)
    finders = finders_of(codes, unit)
    assert list(finders)[:2] == ["multimodal nearest_code", "torch.cdist, argmin"]
    check(vectors, codes, finders)
    assert counted(finders["multimodal nearest_code"], vectors)() == 50


def test_what_finds_others_is_refused():
    vectors, codes = drawn(50, 8, True, 0), drawn(300, 8, True, 1)
    with pytest.raises(ValueError, match="wrong does not find the nearest codes"):
        check(vectors, codes, {"wrong": lambda x: torch.zeros(len(x), dtype=torch.long)})
