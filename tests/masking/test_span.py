"""Spans: as many as the length says, of distinct starts, each within its item, and a function of the item's seed alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.masking import SpanMasking
from multimodal.masking.noise import uniform
from multimodal.protocols import Tokens


def sequences(*lengths: int) -> Tokens:
    total = sum(lengths)
    return Tokens(torch.zeros(total), torch.tensor(lengths), torch.zeros(total, 1, dtype=torch.int64))


def spans_by_hand(length: int, seed: int, ratio: float, span: int) -> list[bool]:
    """One item, span by span."""
    places = max(1, length - span + 1)
    count = min(places, max(1, round(length * ratio / span)))
    noise = uniform(torch.full((places,), seed), torch.arange(places)).tolist()
    hidden = [False] * length
    for start in sorted(range(places), key=noise.__getitem__)[:count]:
        hidden[start : start + span] = [True] * len(hidden[start : start + span])
    return hidden


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=6),
    st.floats(0.05, 0.95),
    st.integers(1, 12),
    st.integers(0, 2**62),
    st.integers(0, 5),
)
def test_spans_are_those_of_a_loop_over_items(lengths, ratio, span, seed, step):
    seeds = [seed + step * i for i in range(len(lengths))]
    masked = SpanMasking(ratio, span)(sequences(*lengths), torch.tensor(seeds))
    assert masked.tolist() == [x for length, own in zip(lengths, seeds, strict=True) for x in spans_by_hand(length, own, ratio, span)]


def test_mockingjay_hides_21_spans_of_7_of_a_thousand_frames():
    masked = SpanMasking()(sequences(*[1000] * 200), torch.arange(200)).view(200, 1000)
    count = masked.sum(1)
    assert count.max() <= 21 * 7 and 125 < count.float().mean() < 21 * 7  # some overlap
    expected = 1000 * (1 - (1 - 7 / 994) ** 21)
    assert count.float().mean().item() == pytest.approx(expected, rel=0.02)
    inner = masked[:, 50:950].float().mean(0)
    assert inner.std() < 0.05  # everywhere alike


def test_an_item_shorter_than_a_span_is_hidden_as_a_whole():
    masked = SpanMasking(span=7)(sequences(3, 7, 20), torch.arange(3))
    assert masked[:10].all() and masked[10:].sum() == 7


@pytest.mark.parametrize("settings", [{"mask_ratio": 0.0}, {"mask_ratio": 1.0}, {"span": 0}])
def test_settings_are_checked(settings):
    with pytest.raises(ValueError, match="must be"):
        SpanMasking(**settings)
