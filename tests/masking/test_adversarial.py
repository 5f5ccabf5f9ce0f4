"""What a masking that learns hides, what its scores should have been, and which places it closes: by hand, and in bounds."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.masking import AdversarialMasking, ChoiceMasking, FieldMasking, Hiding, RandomMasking
from multimodal.protocols import Tokens

SEED = torch.arange(3)
NONE = torch.nan


def tokens_of(*lengths: int, marks: list[int] | None = None) -> Tokens:
    total = sum(lengths)
    said = None if marks is None else torch.isin(torch.arange(total), torch.tensor(marks))
    return Tokens(torch.arange(total), torch.tensor(lengths), torch.zeros(total, 1), marks=said)


def test_the_highest_scores_that_are_open_are_hidden():
    tokens = tokens_of(6, 4, 10)
    scores = torch.tensor([0.1, 0.9, 0.8, 0.7, 0.2, 0.3] + [0.4, 0.3, 0.2, 0.1] + [x / 10 for x in range(10)])
    closed = torch.zeros(20, dtype=torch.bool)
    closed[[1, 6, 7, 8, 9]] = True
    masking = AdversarialMasking(mask_ratio=0.9, shares=(0.4, 0.4))
    chosen = masking.choose(tokens, scores, closed, SEED)
    assert chosen.nonzero()[:, 0].tolist() == [2, 3, 16, 17, 18, 19]  # 2 of 5 open places; none; 4 of 10
    least = AdversarialMasking(mask_ratio=0.2, shares=(0.4, 0.4)).choose(tokens, scores, closed, SEED)
    assert least.nonzero()[:, 0].tolist() == [2, 18, 19]  # a fifth of 6 tokens, and of 10, is less


def test_equal_scores_are_taken_in_order_and_one_token_is_hidden_at_least():
    masking = AdversarialMasking(shares=(0.1, 0.1))
    chosen = masking.choose(tokens_of(3, 1, 2), torch.full((6,), 0.5), torch.zeros(6, dtype=torch.bool), SEED)
    assert chosen.tolist() == [True, False, False, True, True, False]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 2**62), st.data())
def test_marks_and_closed_places_are_never_hidden_and_the_number_is_in_its_bounds(lengths, seed, data):
    total = sum(lengths)
    flags = st.lists(st.booleans(), min_size=total, max_size=total)
    closed, marks = torch.tensor(data.draw(flags)), torch.tensor(data.draw(flags))
    scores = torch.rand(total, generator=torch.Generator().manual_seed(seed % 2**32))
    tokens, seeds, masking = replace(tokens_of(*lengths), marks=marks), torch.arange(len(lengths)) + seed, AdversarialMasking()
    chosen, after = masking.choose(tokens, scores, closed, seeds), masking.closed_next(tokens, scores, closed, seeds)
    assert not (chosen & (closed | marks)).any() and not (after & marks & ~closed).any()
    start = 0
    for number, length in enumerate(lengths):
        own = slice(start, start + length)
        there, free = int((~closed & ~marks)[own].sum()), int((~marks)[own].sum())
        hidden = int(chosen[own].sum())
        assert hidden <= max(1, min(0.3 * there, 0.15 * free) + 0.501) and (hidden >= 1 or not there)
        lowest = scores[own][chosen[own]].min() if hidden else 2.0
        assert (scores[own][(~closed & ~marks & ~chosen)[own]] <= lowest).all()
        assert int((after & ~closed)[own].sum()) <= 0.3 * there
        alone = tokens_of(length) if marks is None else replace(tokens_of(length), marks=marks[own])
        for method, given_ in ((masking.choose, chosen), (masking.closed_next, after)):
            assert torch.equal(method(alone, scores[own], closed[own], seeds[number : number + 1]), given_[own])
        start += length


def test_the_hardest_should_have_scored_one_and_the_easiest_nothing_in_every_item():
    """Three items of ten hidden tokens: the same rule in each, not turned around in every second."""
    tokens = tokens_of(10, 10, 10)
    losses = (
        torch.tensor([[5, 1, 9, 3, 7, 2, 8, 4, 6, 0], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]]).flatten().float()
    )
    everywhere = torch.ones(30, dtype=torch.bool)
    found = AdversarialMasking(extremes=0.3).targets(tokens, losses, everywhere, everywhere).view(3, 10)
    expected = torch.full((3, 10), NONE)
    expected[losses.view(3, 10) >= 7], expected[losses.view(3, 10) <= 2] = 1.0, 0.0
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_tokens_that_were_shown_as_they_are_and_those_not_hidden_have_no_target():
    tokens, losses = tokens_of(8), torch.tensor([9.0, 8.0, 7.0, 1.0, 2.0, 3.0, 100.0, -100.0])
    masked = torch.tensor([True] * 6 + [False] * 2)
    corrupted = torch.tensor([False, True, True, False, True, True, True, True])  # the hardest and the easiest were kept
    found = AdversarialMasking(extremes=0.3).targets(tokens, losses, masked, corrupted)
    torch.testing.assert_close(found, torch.tensor([NONE, 1, 1, NONE, 0, 0, NONE, NONE]), equal_nan=True)


def test_no_token_has_both_targets_however_few_were_changed():
    masking, tokens = AdversarialMasking(extremes=0.5), tokens_of(5)
    masked = torch.ones(5, dtype=torch.bool)
    for changed, expected in ((3, [0, NONE, 1, NONE, NONE]), (2, [0, 1, NONE, NONE, NONE]), (1, [NONE] * 5), (0, [NONE] * 5)):
        found = masking.targets(tokens, torch.arange(5.0), masked, torch.arange(5) < changed)
        torch.testing.assert_close(found, torch.tensor(expected), equal_nan=True, check_dtype=False)


def test_the_highest_open_places_are_closed_and_others_stay():
    tokens, scores = tokens_of(10, 10), torch.arange(20) / 20
    closed = torch.zeros(20, dtype=torch.bool)
    closed[[9, 0]] = True
    after = AdversarialMasking(close=(0.25, 0.25), reopen=0.0).closed_next(tokens, scores, closed, SEED[:2])
    assert after.nonzero()[:, 0].tolist() == [0, 7, 8, 9, 18, 19]  # 2 of the 8 open ones, 2 of 10


def test_places_are_opened_again_at_random_with_a_share_of_their_own_for_each_item():
    tokens, count = tokens_of(*[200] * 300), 60_000
    closed, scores, seed = torch.ones(count, dtype=torch.bool), torch.zeros(count), torch.arange(300)
    opened = (~AdversarialMasking(reopen=0.2).closed_next(tokens, scores, closed, seed)).view(300, 200).float().mean(1)
    assert opened.max() < 0.3 and opened.min() < 0.02 and opened.mean().item() == pytest.approx(0.1, abs=0.01)
    assert opened.std() > 0.04  # uniform from 0 to 0.2: 0.058


def test_the_share_that_is_closed_lies_between_its_bounds():
    tokens, seed = tokens_of(*[1000] * 300), torch.arange(300)
    after = AdversarialMasking(reopen=0.0).closed_next(tokens, torch.rand(300_000), torch.zeros(300_000, dtype=torch.bool), seed)
    shares = after.view(300, 1000).float().mean(1)
    assert shares.min() >= 0.1 and shares.max() <= 0.3 and shares.mean().item() == pytest.approx(0.2, abs=0.01)


def test_the_book_changes_every_fifth_epoch_or_never():
    assert [epoch for epoch in range(16) if AdversarialMasking().changes_book(epoch)] == [4, 9, 14]
    assert not any(AdversarialMasking(book_every=None).changes_book(epoch) for epoch in range(16))


def test_in_evaluation_it_is_random_masking():
    tokens = tokens_of(40, 20, 7, marks=[0, 39])
    assert torch.equal(AdversarialMasking(0.2)(tokens, SEED), RandomMasking(0.2)(tokens, SEED))


def test_the_masker_is_the_published_one():
    masker = AdversarialMasking().masker(768).eval()
    shapes = {name: tuple(x.shape) for name, x in masker.named_parameters()}
    assert shapes == {"hidden.weight": (256, 768), "hidden.bias": (256,), "out.weight": (1, 256), "out.bias": (1,)}
    x = torch.randn(5, 768)
    wanted = torch.sigmoid(torch.relu(x @ masker.hidden.weight.T + masker.hidden.bias) @ masker.out.weight.T + masker.out.bias)[:, 0]
    torch.testing.assert_close(masker(x), wanted)
    assert not torch.equal(masker.train()(x), masker(x))  # dropout


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_ratio": 1.0}, "mask_ratio must be in"),
        ({"shares": (0.3, 0.1)}, "shares must be a least and a most share in"),
        ({"close": (0.1, 1.1)}, "close must be a least and a most share in"),
        ({"extremes": 0.6}, r"extremes must be in \(0, 0.5\], got 0.6"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"book_every": 0}, "book_every must be positive"),
        ({"weight": 0.0}, "must be positive"),
        ({"fields": []}, "fields is empty"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        AdversarialMasking(**settings)


def test_fields_that_tokens_lack_are_refused():
    notes = Tokens(torch.zeros(3, 2), torch.tensor([3]), torch.zeros(3, 1), fields=("bar", "pitch"))
    hidden = AdversarialMasking(fields=["pitch"]).hidden(notes, torch.tensor([True, False, True]))
    assert hidden.tolist() == [[False, True], [False, False], [False, True]]
    with pytest.raises(ValueError, match="no field is called 'velocity': these tokens have bar, pitch"):
        AdversarialMasking(fields=["velocity"])(notes, torch.arange(1))
    with pytest.raises(ValueError, match="AdversarialMasking hides single fields of tokens that have several; these have no fields of ids"):
        AdversarialMasking(fields=["pitch"])(tokens_of(3), torch.arange(1))


def test_it_cannot_be_wrapped():
    with pytest.raises(ValueError, match="AdversarialMasking learns: set fields of its own"):
        FieldMasking(AdversarialMasking())
    with pytest.raises(ValueError, match="AdversarialMasking mixes items or learns"):
        ChoiceMasking([RandomMasking(), AdversarialMasking()])
    with pytest.raises(ValueError, match="hiding: AdversarialMasking learns from what is predicted, and nothing is"):
        Hiding(AdversarialMasking())
