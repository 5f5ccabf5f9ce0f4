"""The nearest code: exact ids whatever the scale, the copies and the number of codes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from multimodal.tokenizers.quantizers import nearest, nearest_code


def exact(vectors: Tensor, codes: Tensor) -> Tensor:
    return torch.stack([(codes.double() - vector).square().sum(1).argmin() for vector in vectors.double()])


def drawn(count: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[True, False], ids=["bfloat16", "float32"])
def coarse_type(request, monkeypatch):
    monkeypatch.setattr(nearest, "_has_bfloat16", lambda device: request.param)


@pytest.mark.parametrize(("count", "num_codes", "dim"), [(700, 1000, 32), (300, 8192, 8), (5, 3, 4), (1, 1, 1), (0, 5, 2), (257, 129, 64)])
@pytest.mark.parametrize("unit", [True, False])
def test_ids_are_those_of_float64(coarse_type, count, num_codes, dim, unit):
    vectors, codes = drawn(count, dim), drawn(num_codes, dim, 1)
    if unit:
        vectors, codes = F.normalize(vectors, dim=1), F.normalize(codes, dim=1)
    expected = exact(vectors, codes) if count else torch.empty(0, dtype=torch.long)
    assert torch.equal(nearest_code(vectors, codes), expected)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 300),
    st.integers(1, 40),
    st.integers(0, 2**31),
    st.floats(-6, 6),
    st.floats(-6, 6),
    st.floats(0, 100),
    st.booleans(),
)
def test_ids_are_those_of_float64_at_any_scale(count, num_codes, dim, seed, scale, code_scale, shift, even):
    vectors, codes = drawn(count, dim, seed) * 10**scale, drawn(num_codes, dim, seed + 1) * 10**code_scale + shift
    codes = codes if even else codes * torch.linspace(0, 3, num_codes)[:, None]
    assert torch.equal(nearest_code(vectors, codes), exact(vectors, codes))


def test_codes_that_differ_by_less_than_the_coarse_numbers_can_tell(coarse_type):
    codes = F.normalize(drawn(1, 16), dim=1) + 1e-6 * drawn(200, 16, 1)
    vectors = codes[torch.arange(0, 200, 7)] + 1e-8 * drawn(29, 16, 2)
    assert torch.equal(nearest_code(vectors, codes), exact(vectors, codes))
    assert len(nearest_code(vectors, codes).unique()) == 29


@pytest.mark.parametrize("num_codes", [300, 2000])
def test_of_copies_the_first_is_chosen(coarse_type, num_codes):
    vectors, codes = drawn(40, 6), drawn(num_codes // 100, 6, 1).repeat(100, 1)
    ids = nearest_code(vectors, codes)
    assert torch.equal(ids, exact(vectors, codes)) and ids.max() < num_codes // 100
    assert torch.equal(nearest_code(torch.zeros(3, 6), torch.zeros(num_codes, 6)), torch.zeros(3, dtype=torch.long))


def test_ids_do_not_depend_on_the_batch():
    vectors, codes = drawn(600, 16), drawn(500, 16, 1)
    whole = nearest_code(vectors, codes)
    assert torch.equal(whole, torch.cat([nearest_code(part, codes) for part in vectors.split(7)]))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest_code(vectors, codes), whole)


def test_ids_do_not_depend_on_the_precision_of_products(coarse_type):
    vectors, codes = F.normalize(drawn(500, 64), dim=1), F.normalize(drawn(3000, 64, 1), dim=1)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(nearest_code(vectors, codes), exact(vectors, codes))
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(value):
    bad, good = drawn(4, 3), drawn(5, 3)
    bad[2, 1] = value
    for vectors, codes in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match="must be finite"):
            nearest_code(vectors, codes)
    with pytest.raises(ValueError, match="no codes"):
        nearest_code(good, good[:0])
