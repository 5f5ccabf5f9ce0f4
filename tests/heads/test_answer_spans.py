"""The best spans of answers, against all of them one by one."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.heads.answer_spans import best_spans


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 8), st.integers(1, 5), st.integers(0, 2**20))
def test_the_best_spans_are_those_of_all(tokens, count, longest, seed):
    generator = torch.Generator().manual_seed(seed)
    starts, ends = torch.randn(2, tokens, generator=generator).unbind()
    allowed = torch.rand(tokens, generator=generator) < 0.7
    every = [
        (float(starts[first] + ends[last]), first, last)
        for first in range(tokens)
        for last in range(first, min(tokens, first + longest))
        if allowed[first] and allowed[last]
    ]
    assert [tuple(span) for span in best_spans(starts, ends, allowed, count, longest)] == sorted(every, reverse=True)[:count]
