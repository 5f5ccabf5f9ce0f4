"""Whole bars and tracks are hidden, spans of notes, and one of several ways for each item."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.masking import ChoiceMasking, FieldMasking, GroupMasking, MixedMasking, RandomMasking, SpanMasking
from multimodal.protocols import Tokens
from tests.masking.notes import notes

BARS = st.lists(st.integers(-1, 6), min_size=1, max_size=40)


@settings(deadline=None, max_examples=200)
@given(st.lists(BARS, min_size=1, max_size=4), st.floats(0.01, 0.99), st.integers(0, 2**62), st.data())
def test_whole_groups_are_hidden_one_at_least_and_never_all(items, ratio, seed, data):
    total = sum(map(len, items))
    marks = data.draw(st.none() | st.lists(st.booleans(), min_size=total, max_size=total))
    tokens = notes(*items, marks=marks)
    seeds = torch.arange(len(items)) * 13 + seed
    masked = GroupMasking("bar", ratio)(tokens, seeds)
    free = torch.ones(total, dtype=torch.bool) if marks is None else ~torch.tensor(marks)
    for number, (own, can, bars) in enumerate(
        zip(*(x.split([len(x) for x in items]) for x in (masked, free, tokens.groups()["bar"])), strict=True)
    ):
        can = can & (bars >= 0)
        hidden, there = set(bars[own].tolist()), set(bars[can].tolist())
        assert torch.equal(own, can & torch.isin(bars, torch.tensor(sorted(hidden), dtype=torch.int64)))
        assert len(hidden) == 1 if len(there) == 1 else 0 < len(hidden) < len(there) or not there
        alone = notes(items[number], marks=None if marks is None else marks[sum(map(len, items[:number])) :][: len(items[number])])
        assert torch.equal(own, GroupMasking("bar", ratio)(alone, seeds[number : number + 1]))


def test_the_number_of_hidden_tokens_is_the_closest_that_the_drawn_order_allows():
    tokens = notes([0] * 10 + [1] * 10 + [2] * 10 + [3] * 10)
    counts = {
        ratio: {int(GroupMasking("bar", ratio)(tokens, torch.tensor([s])).sum()) for s in range(30)} for ratio in (0.1, 0.37, 0.4, 0.9)
    }
    assert counts == {0.1: {10}, 0.37: {10}, 0.4: {20}, 0.9: {30}}  # 14.8 is closer to 10; 16 to 20
    unequal = notes([0] * 3 + [1] * 30)
    assert {int(GroupMasking("bar", 0.5)(unequal, torch.tensor([s])).sum()) for s in range(30)} == {3, 30}


def test_over_many_items_the_share_is_the_one_asked_for_and_every_bar_is_as_likely():
    tokens = notes(*[[place // 8 for place in range(128)]] * 500)
    masked = GroupMasking("bar", 0.25)(tokens, torch.arange(500)).view(500, 16, 8)
    assert torch.equal(masked.all(2), masked.any(2)) and (masked.sum((1, 2)) == 32).all()
    assert (masked[:, :, 0].float().mean(0) - 0.25).abs().max() < 0.07


def test_marks_count_neither_as_groups_nor_in_the_share():
    tokens = notes([0, 1, 1, 2, 2, 3, 3, 4], marks=[True, *[False] * 6, True])
    for seed in range(20):
        masked = GroupMasking("bar", 0.34)(tokens, torch.tensor([seed]))
        assert masked.sum() == 2 and not masked[0] and not masked[7]


def test_no_tokens_and_tokens_of_no_group_hide_nothing():
    empty = Tokens(torch.zeros(0, 4), torch.tensor([0]), torch.zeros(0, 1), groups=lambda: {"bar": torch.zeros(0, dtype=torch.int64)})
    assert GroupMasking("bar")(empty, torch.tensor([0])).shape == (0,)
    assert GroupMasking("bar")(notes([-1, -1], [0, 1]), torch.tensor([0, 1])).tolist()[:2] == [False, False]


def test_a_group_that_the_tokenizer_does_not_tell_is_refused_with_those_that_it_tells():
    with pytest.raises(ValueError, match=r"GroupMasking needs groups called 'voice', .* does not tell; it tells 'bar', 'track'"):
        GroupMasking("voice")(notes([0, 1]), torch.tensor([0]))
    with pytest.raises(ValueError, match="tells no groups at all: use RandomMasking"):
        GroupMasking("bar")(Tokens(torch.zeros(3), torch.tensor([3]), torch.zeros(3, 1)), torch.tensor([0]))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.floats(0.05, 0.9), st.integers(1, 12), st.integers(0, 2**62))
def test_spans_of_notes_are_runs_within_their_piece(lengths, ratio, span, seed):
    tokens = notes(*[[0] * length for length in lengths])
    masked = SpanMasking(ratio, span)(tokens, torch.arange(len(lengths)) + seed)
    for own, length in zip(masked.split(lengths), lengths, strict=True):
        runs = "".join("x" if hidden else " " for hidden in own.tolist()).split()
        assert runs and all(len(run) >= min(span, length) for run in runs)
        assert int(own.sum()) <= span * max(1, round(torch.tensor(length * ratio / span).round().item()))


def test_each_item_is_hidden_in_one_of_the_ways_as_often_as_its_weight_says():
    tokens, seed = notes(*[[place // 4 for place in range(16)]] * 3000), torch.arange(3000)
    ways = [GroupMasking("bar", 0.5), SpanMasking(0.25, 4), RandomMasking(0.1)]
    made, own = ChoiceMasking(ways, [2, 1, 1])(tokens, seed).view(3000, 16), [way(tokens, seed).view(3000, 16) for way in ways]
    same = torch.stack([(made == x).all(1) for x in own])
    assert same.any(0).all()
    clear = same.sum(0) == 1  # a span may be a bar
    torch.testing.assert_close(same[:, clear].float().mean(1), torch.tensor([0.5, 0.25, 0.25]), atol=0.04, rtol=0)
    assert torch.equal(ChoiceMasking(ways, [2, 1, 1])(notes([place // 4 for place in range(16)]), seed[5:6]), made[5])
    assert torch.equal(ChoiceMasking(ways, [0, 1, 0])(tokens, seed), own[1].flatten())


def test_whole_tokens_and_single_fields_are_chosen_among():
    tokens, seed = notes(*[[place // 4 for place in range(16)]] * 100), torch.arange(100)
    made = ChoiceMasking([GroupMasking("bar"), FieldMasking(RandomMasking(0.5), ["pitch"])])(tokens, seed).view(100, 16, 4)
    whole = (made.all(2) == made.any(2)).all(1)
    pitch = ~made[:, :, [0, 1, 3]].any((1, 2))
    assert (whole ^ pitch).all() and 30 < whole.sum() < 70


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GroupMasking("bar", 1.0), r"mask_ratio must be in \(0, 1\), got 1.0"),
        (lambda: ChoiceMasking([]), "0 maskings need as many weights"),
        (lambda: ChoiceMasking([RandomMasking()], [1, 2]), r"1 maskings need as many weights of at least 0, not all 0; got \[1, 2\]"),
        (lambda: ChoiceMasking([RandomMasking()], [0.0]), "not all 0"),
        (lambda: ChoiceMasking([MixedMasking(2)]), "MixedMasking mixes items"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
