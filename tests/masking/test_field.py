"""Single fields of tokens are hidden: which, how often, and of what."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.masking import FieldMasking, GroupMasking, MaskReplaceKeep, MixedMasking, RandomMasking
from multimodal.protocols import Tokens
from multimodal.tokenizers.midi import CompoundEmbed
from tests.masking.notes import FIELDS, notes

SEED = torch.arange(3)
ITEMS = notes([0] * 10 + [1] * 10, [0] * 30, [0, 0, 1, 1, 2, 2, 3, 3])


def test_only_the_named_fields_of_the_hidden_tokens_are_hidden():
    masked = RandomMasking(0.3)(ITEMS, SEED)
    hidden = FieldMasking(RandomMasking(0.3), ["pitch", "duration"])(ITEMS, SEED)
    assert torch.equal(hidden[:, 2], masked) and torch.equal(hidden[:, 3], masked) and not hidden[:, :2].any()
    assert torch.equal(FieldMasking(RandomMasking(0.3))(ITEMS, SEED), masked[:, None].expand(-1, 4))


def test_one_field_is_drawn_as_often_as_another():
    tokens = notes(*[[0] * 40] * 200)
    seed = torch.arange(200)
    hidden = FieldMasking(RandomMasking(0.5), ["position", "pitch", "duration"], draw="one")(tokens, seed)
    assert torch.equal(hidden.sum(1), RandomMasking(0.5)(tokens, seed).long())
    shares = hidden.float().mean(0) / 0.5
    torch.testing.assert_close(shares, torch.tensor([0, 1 / 3, 1 / 3, 1 / 3]), atol=0.03, rtol=0)


def test_every_number_of_fields_is_as_likely_and_every_set_of_one_number():
    tokens = notes(*[[0] * 40] * 500)
    hidden = FieldMasking(RandomMasking(0.5), draw="some")(tokens, torch.arange(500))
    sets = Counter(tuple(row) for row in hidden[hidden.any(1)].tolist())
    assert len(sets) == 15 and sum(sets.values()) == 10_000
    for fields, count in sets.items():
        alike = {1: 4, 2: 6, 3: 4, 4: 1}[sum(fields)]
        assert count / 10_000 == pytest.approx(0.25 / alike, abs=0.02)


def test_a_whole_bar_lacks_one_field_and_a_whole_item():
    bars = notes([0] * 5 + [1] * 7 + [2] * 4, [0] * 6 + [1] * 6)
    seed = torch.tensor([4, 9])
    hidden = FieldMasking(GroupMasking("bar", 0.7), draw="one", per="bar")(bars, seed)
    masked, number = GroupMasking("bar", 0.7)(bars, seed), bars.groups()["bar"]
    found = []
    for item in range(2):
        for bar in range(3):
            own = hidden[(bars.item == item) & (number == bar)]
            assert own.unique(dim=0).shape[0] <= 1
            found += [tuple(x) for x in own[:1].tolist() if any(x)]
    assert len(found) == 3 and all(sum(x) == 1 for x in found) and torch.equal(hidden.any(1), masked)
    whole = FieldMasking(RandomMasking(0.9), draw="one", per="item")(bars, seed)
    assert all(own[own.any(1)].unique(dim=0).shape[0] == 1 for own in whole.split([16, 12]))


def test_bars_do_not_all_lack_the_same_field():
    bars = notes([number for number in range(100) for _ in range(2)])
    hidden = FieldMasking(GroupMasking("bar", 0.9), draw="one", per="bar")(bars, torch.tensor([3]))
    assert (hidden.sum(0) > 20).all()


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=5), st.sampled_from(["all", "one", "some"]), st.integers(0, 2**62))
def test_what_is_hidden_of_an_item_does_not_depend_on_the_batch(lengths, draw, seed):
    items, seeds = [[place // 4 for place in range(length)] for length in lengths], torch.arange(len(lengths)) * 7 + seed
    masking = FieldMasking(RandomMasking(0.5), ["pitch", "bar"], draw, per="bar")
    together = masking(notes(*items), seeds).split(lengths)
    for number, own in enumerate(together):
        assert torch.equal(own, masking(notes(items[number]), seeds[number : number + 1]))
        assert own.any() and not own[:, [1, 3]].any()


@pytest.mark.parametrize(("mask", "replace"), [(1.0, 0.0), (0.5, 0.0), (0.4, 0.3)])
def test_shown_fields_stay_and_hidden_ones_change_together(mask, replace):
    embed, tokens = CompoundEmbed(8, vocab_sizes=(90, 90, 90, 90)), notes(*[[0] * 40] * 50)
    hidden = FieldMasking(RandomMasking(0.5), draw="some")(tokens, torch.arange(50))
    shown, as_mask, visible = MaskReplaceKeep(mask, replace)(embed, tokens, hidden, torch.arange(50))
    changed = shown.inputs != tokens.inputs
    assert visible is None and not (changed & ~hidden).any() and not (as_mask & ~hidden).any() and not (changed & as_mask).any()
    of_tokens = hidden.any(1)
    assert torch.equal(as_mask[as_mask.any(1)], hidden[as_mask.any(1)])  # all hidden fields of a token, or none
    assert as_mask.any(1).sum() / of_tokens.sum() == pytest.approx(mask, abs=0.05)
    assert changed.any(1).sum() / of_tokens.sum() == pytest.approx(replace, abs=0.05)


def test_the_mask_id_stands_in_the_hidden_fields_alone():
    embed = CompoundEmbed(8, vocab_sizes=(90, 90, 90, 90))
    tokens = notes([0, 0, 0])
    as_mask = torch.tensor([[False, True, False, True], [False] * 4, [True] * 4])
    expected = torch.tensor([[0, 89, 0, 89], [1] * 4, [89] * 4])
    assert torch.equal(embed(tokens, as_mask), embed(tokens.with_inputs(expected)))


def test_tokens_differ_where_any_of_their_inputs_does():
    for inputs in (torch.tensor([1, 2, 3]), torch.tensor([[0, 1], [0, 2], [0, 3]]), torch.arange(12).view(3, 2, 2), torch.zeros(0, 4)):
        tokens = Tokens(inputs, torch.tensor([len(inputs)]), torch.zeros(len(inputs), 1))
        other = inputs.clone()
        other[1:2] += 1
        assert tokens.differing(tokens.with_inputs(other)).tolist() == [False, True, False][: len(inputs)]


def test_tokens_repeat_and_select_what_is_said_of_them():
    tokens = notes([0, 0, 1], [0, 1, 2, 3])
    assert tokens.repeated(2).groups()["bar"].tolist() == [0, 0, 1, 0, 1, 2, 3] * 2
    kept = torch.tensor([True, False, True, False, True, True, False])
    assert tokens.select(kept).groups()["track"].tolist() == [0, 2, 1, 2] and tokens.select(kept).fields == FIELDS


@pytest.mark.parametrize(
    ("masking", "tokens", "message"),
    [
        (FieldMasking(RandomMasking(), ["velocity"]), ITEMS, "no field is called 'velocity': these tokens have bar, position, pitch, "),
        (FieldMasking(FieldMasking(RandomMasking())), ITEMS, "FieldMasking hides single fields already"),
        (
            FieldMasking(RandomMasking(), per="voice", draw="one"),
            ITEMS,
            "FieldMasking needs groups called 'voice', .* tells 'bar', 'track'",
        ),
        (
            FieldMasking(RandomMasking()),
            Tokens(torch.arange(3), torch.tensor([3]), torch.zeros(3, 1), fields=("token",)),
            "tokens that have several; these have the single field 'token'",
        ),
        (FieldMasking(RandomMasking()), Tokens(torch.zeros(3, 2), torch.tensor([3]), torch.zeros(3, 1)), "these have no fields of ids"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(masking, tokens, message):
    with pytest.raises(ValueError, match=message):
        masking(tokens, torch.arange(len(tokens.lengths)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fields": []}, "at least one, got"),
        ({"fields": ["a", "a"]}, "different names"),
        ({"masking": MixedMasking(2)}, "MixedMasking mixes items"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        FieldMasking(**{"masking": RandomMasking()} | settings)


def test_an_unknown_draw_is_refused(unchecked):
    with pytest.raises(ValueError, match="draw must be one of all, one, some, got 'two'"):
        FieldMasking(RandomMasking(), draw="two")
