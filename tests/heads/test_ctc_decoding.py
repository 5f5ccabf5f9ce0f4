"""Decoding of CTC against all alignments there are."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.heads.ctc_decoding import beam_search, greedy, padded_steps


def drawn(seed: int, count: int, longest: int, num_ids: int, spread: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probabilities and lengths of random sequences, one of them without steps."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(count, longest, num_ids + 1, generator=generator)
    return logits.log_softmax(-1), torch.randint(longest + 1, (count,), generator=generator)


def collapsed(alignment: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(entry for entry, _ in itertools.groupby(alignment) if entry != blank)


def by_all_alignments(steps: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Return ids -> log-probability, summed over every alignment."""
    found: dict[tuple[int, ...], float] = {}
    count = steps.shape[1]
    for alignment in itertools.product(range(count), repeat=len(steps)):
        score = math.exp(sum(float(steps[place, entry]) for place, entry in enumerate(alignment)))
        ids = collapsed(alignment, count - 1)
        found[ids] = found.get(ids, 0.0) + score
    return {ids: math.log(probability) for ids, probability in found.items()}


def prefixes(longest: int, num_ids: int) -> int:
    return sum(num_ids**length for length in range(longest + 1))


cases = st.tuples(st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))


@settings(max_examples=40, deadline=None)
@given(cases)
def test_a_search_of_all_prefixes_finds_every_reading_with_its_probability(case):
    log_probabilities, lengths = drawn(*case)
    found = beam_search(log_probabilities, lengths, beam_size=prefixes(case[2], case[3]))
    for steps, length, hypotheses in zip(log_probabilities.double(), lengths, found, strict=True):
        expected = by_all_alignments(steps[:length])
        assert {tuple(ids.tolist()): score for ids, score in hypotheses} == pytest.approx(expected, abs=1e-9)
        scores = [score for _, score in hypotheses]
        assert scores == sorted(scores, reverse=True)


@settings(max_examples=40, deadline=None)
@given(cases, st.floats(-3, 3))
def test_a_bonus_is_added_for_each_id(case, bonus):
    log_probabilities, lengths = drawn(*case)
    found = beam_search(log_probabilities, lengths, beam_size=prefixes(case[2], case[3]), length_bonus=bonus)
    for steps, length, hypotheses in zip(log_probabilities.double(), lengths, found, strict=True):
        expected = {ids: score + bonus * len(ids) for ids, score in by_all_alignments(steps[:length]).items()}
        assert hypotheses[0].score == pytest.approx(max(expected.values()), abs=1e-9)
        assert {tuple(ids.tolist()): score for ids, score in hypotheses} == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(cases)
def test_greedy_decoding_reads_the_likeliest_alignment(case):
    log_probabilities, lengths = drawn(*case)
    for steps, length, ids in zip(log_probabilities, lengths, greedy(log_probabilities, lengths), strict=True):
        alignments = itertools.product(range(case[3] + 1), repeat=int(length))
        best = max(alignments, key=lambda alignment: float(sum(steps[place, entry] for place, entry in enumerate(alignment))))
        assert tuple(ids.tolist()) == collapsed(best, case[3])


def naive_search(steps: torch.Tensor, size: int) -> list[tuple[tuple[int, ...], float]]:
    """Return what a search with dictionaries finds: the same pruning, one prefix after the other."""
    blank_id = steps.shape[1] - 1
    beams = {(): (0.0, -math.inf)}
    for step in steps.tolist():
        new: dict[tuple[int, ...], list[float]] = {}
        for prefix, (blank, other) in beams.items():
            total = _add(blank, other)
            for entry, score in enumerate(step):
                grows = entry != blank_id
                if not grows:
                    _put(new, prefix, 0, total + score)
                elif prefix and prefix[-1] == entry:
                    _put(new, prefix, 1, other + score)
                    _put(new, (*prefix, entry), 1, blank + score)
                else:
                    _put(new, (*prefix, entry), 1, total + score)
        kept = sorted(new, key=lambda prefix: -_add(*new[prefix]))[:size]
        beams = {prefix: (new[prefix][0], new[prefix][1]) for prefix in kept}
    return [(prefix, _add(*pair)) for prefix, pair in sorted(beams.items(), key=lambda entry: -_add(*entry[1]))]


def _put(new: dict, prefix: tuple[int, ...], place: int, score: float) -> None:
    new.setdefault(prefix, [-math.inf, -math.inf])[place] = _add(new.get(prefix, [-math.inf, -math.inf])[place], score)


def _add(a: float, b: float) -> float:
    return max(a, b) + math.log1p(math.exp(-abs(a - b))) if max(a, b) > -math.inf else -math.inf


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_a_narrow_search_keeps_the_same_prefixes_as_one_with_dictionaries(seed, size):
    log_probabilities, lengths = drawn(seed, 3, 12, 4, spread=1.0)
    for steps, length, hypotheses in zip(log_probabilities.double(), lengths, beam_search(log_probabilities, lengths, size), strict=True):
        expected = naive_search(steps[:length], size)
        expected = [entry for entry in expected if entry[1] > -math.inf]
        assert [tuple(ids.tolist()) for ids, _ in hypotheses] == [prefix for prefix, _ in expected]
        assert [score for _, score in hypotheses] == pytest.approx([score for _, score in expected], abs=1e-9)


def test_alignments_of_one_reading_count_together():
    steps = torch.tensor([[[0.4, 0.0, 0.6], [0.4, 0.0, 0.6]]]).log()  # blank twice: 0.36; the id 0 in three ways: 0.64
    lengths = torch.tensor([2])
    assert greedy(steps, lengths)[0].tolist() == []
    best = beam_search(steps, lengths, beam_size=4)[0][0]
    assert best.ids.tolist() == [0] and best.score == pytest.approx(math.log(0.64), abs=1e-6)


def test_the_same_id_twice_needs_a_blank_between():
    sure = torch.full((1, 3, 3), -50.0)
    for place, entry in enumerate((0, 2, 0)):
        sure[0, place, entry] = 0.0
    assert greedy(sure, torch.tensor([3]))[0].tolist() == [0, 0]
    assert greedy(sure[:, [0, 2]], torch.tensor([2]))[0].tolist() == [0]
    assert beam_search(sure, torch.tensor([3]), 3)[0][0].ids.tolist() == [0, 0]


def test_what_lies_after_the_end_of_a_sequence_is_not_read():
    log_probabilities, _ = drawn(3, 2, 6, 4)
    lengths = torch.tensor([4, 6])
    other = log_probabilities.clone()
    other[0, 4:] = 0.0
    for decode in (greedy, lambda x, n: [hypotheses[0].ids for hypotheses in beam_search(x, n, 5)]):
        for a, b in zip(decode(log_probabilities, lengths), decode(other, lengths), strict=True):
            assert a.tolist() == b.tolist()


def test_no_sequences_and_no_steps_give_nothing():
    nothing = torch.zeros(0, 0, 3)
    assert greedy(nothing, torch.zeros(0, dtype=torch.int64)) == [] and beam_search(nothing, torch.zeros(0, dtype=torch.int64), 2) == []
    empty = torch.zeros(2, 0, 3)
    assert [ids.tolist() for ids in greedy(empty, torch.tensor([0, 0]))] == [[], []]
    assert [len(found) for found in beam_search(empty, torch.tensor([0, 0]), 3)] == [1, 1]


def test_steps_are_laid_side_by_side():
    values = torch.arange(1.0, 9.0).view(4, 2)
    filled, lengths = padded_steps(values, torch.tensor([0, 2, 2, 2]), 4)
    assert lengths.tolist() == [1, 0, 3, 0]
    assert filled[0].tolist() == [[1, 2], [0, 0], [0, 0]] and filled[2].tolist() == [[3, 4], [5, 6], [7, 8]] and not filled[[1, 3]].any()


def test_a_beam_needs_a_prefix():
    with pytest.raises(ValueError, match="beam_size must be at least 1, got 0"):
        beam_search(*drawn(0, 1, 2, 2), beam_size=0)
