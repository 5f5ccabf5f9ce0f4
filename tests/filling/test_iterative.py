"""Rounds of predictions: what is known stays, what is filled in may be, and rounds see those before them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.filling import AllowedIds, IterativeDecoding
from multimodal.protocols import Tokenizer

SIZES = (5, 9)


class Pairs(Tokenizer):
    """Two fields, whose last id says nothing; in the second the ids from 4 on are of another kind."""

    vocab_sizes = SIZES
    field_names = ("left", "right")

    def encode(self, values, lengths=None):
        return values

    def kinds(self):
        return torch.tensor([0, 0, 0, 0, -1]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, -1])

    def fingerprint(self):
        return "pairs"


ALLOWED = AllowedIds(Pairs())
KINDS = Pairs().kinds()


def draw_items(lengths: list[int], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(size - 1, (sum(lengths),), generator=generator) for size in SIZES], 1)


def context_model(lengths: torch.Tensor):
    """Logits that depend on the place of a token and on all that is seen of its item."""
    item = torch.repeat_interleave(lengths)
    place = torch.arange(len(item)) - (lengths.cumsum(0) - lengths)[item]

    def predict(ids: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
        seen = ((ids + 1) * ~hidden * torch.tensor([3, 7]) * (place[:, None] + 1)).sum(1)
        total = torch.zeros_like(lengths).index_add_(0, item, seen)
        rows = hidden.any(1)
        state = (total[item] + 11 * place)[rows, None].double()
        return [(3 * torch.sin(state * (torch.arange(size) + 1.7))).float() for size in SIZES]

    return predict


def oracle(truth: torch.Tensor, sharpness: float = 1e4):
    def predict(ids: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
        rows = hidden.any(1)
        return [sharpness * torch.nn.functional.one_hot(truth[rows, field], size).float() for field, size in enumerate(SIZES)]

    return predict


WAYS = st.builds(
    lambda steps, schedule, temperature, unit, refine, order: IterativeDecoding(
        steps, schedule, temperature, unit=unit, refine_steps=refine, order=order[0], revise=order[1]
    ),
    st.integers(1, 6),
    st.sampled_from(["cosine", "linear"]),
    st.sampled_from([0.0, 0.7, 1.0]),
    st.sampled_from(["token", "field"]),
    st.integers(0, 3),
    st.sampled_from([("confidence", False), ("confidence", True), ("random", False)]),
)
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=4)


@settings(deadline=None, max_examples=40)
@given(WAYS, LENGTHS, st.integers(0, 99))
def test_the_known_stay_and_only_allowed_ids_come(how, lengths, seed):
    ids, generator = draw_items(lengths, seed), torch.Generator().manual_seed(seed)
    asked = torch.rand(ids.shape, generator=generator) < 0.5
    seeds = torch.arange(len(lengths)) + seed
    found = how(context_model(torch.tensor(lengths)), ids, asked, torch.tensor(lengths), seeds, ALLOWED)
    assert torch.equal(found[~asked], ids[~asked])
    for field, kinds in enumerate(KINDS):
        assert torch.equal(kinds[found[:, field]], kinds[ids[:, field]]), "of the same kind, and so none that says nothing"


@settings(deadline=None, max_examples=40)
@given(WAYS, LENGTHS, st.integers(0, 99))
def test_what_was_hidden_does_not_matter_but_for_its_kind(how, lengths, seed):
    ids, generator = draw_items(lengths, seed), torch.Generator().manual_seed(seed)
    asked = torch.rand(ids.shape, generator=generator) < 0.5
    other = torch.stack([(ids[:, 0] + 1) % 4, ids[:, 1] // 4 * 4 + (ids[:, 1] + 1) % 4], 1)
    other = torch.where(asked, other, ids)
    sizes, seeds = torch.tensor(lengths), torch.arange(len(lengths))
    model = context_model(sizes)
    assert torch.equal(how(model, ids, asked, sizes, seeds, ALLOWED), how(model, other, asked, sizes, seeds, ALLOWED))


@settings(deadline=None, max_examples=40)
@given(WAYS, LENGTHS, st.integers(0, 99))
def test_an_item_is_filled_alike_alone_and_among_others(how, lengths, seed):
    ids, generator = draw_items(lengths, seed), torch.Generator().manual_seed(seed)
    asked = torch.rand(ids.shape, generator=generator) < 0.6
    sizes, seeds = torch.tensor(lengths), torch.arange(len(lengths)) * 31 + 5
    together = how(context_model(sizes), ids, asked, sizes, seeds, ALLOWED).split(lengths)
    for number, size in enumerate(lengths):
        own, own_asked = ids.split(lengths)[number], asked.split(lengths)[number]
        alone = how(context_model(sizes[number : number + 1]), own, own_asked, torch.tensor([size]), seeds[number : number + 1], ALLOWED)
        assert torch.equal(together[number], alone)


@settings(deadline=None, max_examples=40)
@given(WAYS, LENGTHS)
def test_a_model_that_knows_fills_in_the_truth(how, lengths):
    ids = draw_items(lengths)
    found = how(oracle(ids), ids, torch.ones_like(ids, dtype=torch.bool), torch.tensor(lengths), torch.arange(len(lengths)), ALLOWED)
    assert torch.equal(found, ids)


def test_the_seed_decides():
    ids, sizes = draw_items([40]), torch.tensor([40])
    how, asked = IterativeDecoding(3), torch.ones_like(ids, dtype=torch.bool)
    first, again, other = (how(context_model(sizes), ids, asked, sizes, torch.tensor([seed]), ALLOWED) for seed in (1, 1, 2))
    assert torch.equal(first, again) and (first != other).float().mean() > 0.2


def counting(lengths: torch.Tensor):
    """Knows a token once the one before it is known, and guesses otherwise: ids count upwards."""
    log = []

    def predict(ids: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
        log.append(int(hidden.any(1).sum()))
        known = ~hidden.any(1).roll(1)
        known[(lengths.cumsum(0) - lengths)] = False
        rows = hidden.any(1)
        sure = torch.where(known, 50.0, 0.0)[rows, None]
        following = (ids.roll(1, 0) + 1) % torch.tensor([4, 4])
        return [sure * torch.nn.functional.one_hot(following[rows, field], size).float() for field, size in enumerate(SIZES)]

    predict.log = log
    return predict


@pytest.mark.parametrize("unit", ["token", "field"])
def test_rounds_see_what_was_filled_in_before(unit):
    size = torch.tensor([12])
    truth = (torch.arange(12)[:, None] % 4).expand(12, 2).contiguous()
    asked = torch.ones(12, 2, dtype=torch.bool)
    asked[0] = False
    found = IterativeDecoding(30, unit=unit)(counting(size), truth, asked, size, torch.tensor([3]), ALLOWED)
    assert torch.equal(found, truth)
    at_once = IterativeDecoding(1)(counting(size), truth, asked, size, torch.tensor([3]), ALLOWED)
    assert not torch.equal(at_once, truth)


def test_the_surest_are_kept_by_the_schedule():
    size, ids = torch.tensor([10]), draw_items([10])
    model = counting(size)
    IterativeDecoding(5, "linear", unit="token")(model, ids, torch.ones_like(ids, dtype=torch.bool), size, torch.tensor([0]), ALLOWED)
    assert model.log == [10, 8, 6, 4, 2]


def test_few_hidden_tokens_take_few_rounds():
    size, ids = torch.tensor([10]), draw_items([10])
    asked = torch.zeros_like(ids, dtype=torch.bool)
    asked[2:5] = True
    model = counting(size)
    IterativeDecoding(8)(model, ids, asked, size, torch.tensor([0]), ALLOWED)
    assert model.log == [3, 2, 1]


def test_confidence_of_a_token_is_the_mean_over_its_hidden_fields():
    """The first token is sure of one field and knows nothing of the other; the second is fairly sure of the one that is hidden of it."""
    asked = torch.tensor([[True, True], [False, True]])
    shown = []

    def predict(ids: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
        shown.append(hidden.clone())
        rows = hidden.any(1)
        left = torch.tensor([[99.0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
        right = torch.tensor([[0.0] * 9, [2.0, 0, 0, 0, 0, 0, 0, 0, 0]])
        return [left[rows], right[rows]]

    ids = torch.zeros(2, 2, dtype=torch.int64)
    IterativeDecoding(2, temperature=0)(predict, ids, asked, torch.tensor([2]), torch.tensor([0]), ALLOWED)
    # of four allowed ids: mean of log 1 and log 1/4 is -0.69; e^2 / (e^2 + 3) is 0.71, of which the logarithm is -0.34
    assert shown[1].tolist() == [[True, True], [False, False]]


def test_revising_hides_again_what_was_kept():
    """The first guess at token 0 is sure, and wrong once token 1 is seen; only with ``revise`` does it come up again."""

    def make():
        shown = []

        def predict(ids: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
            shown.append(hidden.any(1).tolist())
            rows = hidden.any(1)
            certainty = torch.tensor([1.0, 0.5, 0.2]) if len(shown) == 1 else torch.tensor([0.0, 6.0, 5.0])
            logits = torch.zeros(3, 5)
            logits[:, 1] = certainty
            return [logits[rows], torch.zeros(int(rows.sum()), 9)]

        return predict, shown

    asked = torch.tensor([[True, False]] * 3)
    for revise, second_last in ((False, [False, False, True]), (True, [True, False, False])):
        predict, shown = make()
        how = IterativeDecoding(3, "linear", temperature=0, revise=revise)
        how(predict, torch.zeros(3, 2, dtype=torch.int64), asked, torch.tensor([3]), torch.tensor([0]), ALLOWED)
        assert shown[:2] == [[True] * 3, [False, True, True]]
        assert shown[2] == second_last


def test_refinement_draws_a_falling_share_again():
    size, ids = torch.tensor([40]), draw_items([40])
    asked = torch.zeros_like(ids, dtype=torch.bool)
    asked[:, 1] = True
    model = counting(size)
    how = IterativeDecoding(1, refine_steps=3, refine_share=(0.5, 0.1))
    how(model, ids, asked, size, torch.tensor([0]), ALLOWED)
    assert model.log == [40, 20, 12, 4]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"temperature": -1.0}, "temperature must be at least 0"),
        ({"top_p": 0.0}, r"top_p in \(0, 1\]"),
        ({"top_k": 0}, "top_k at least 1"),
        ({"refine_share": (0.0, 0.5)}, "refine_share must be two shares"),
        ({"revise": True, "order": "random"}, "leave one of them out"),
    ],
)
def test_settings_outside_their_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        IterativeDecoding(**wrong)


@pytest.mark.parametrize("name", ["schedule", "unit", "order"])
def test_unknown_ways_are_refused(name, unchecked):
    with pytest.raises(ValueError, match=f"{name} must be one of"):
        IterativeDecoding(**{name: "other"})


def test_a_range_binds_the_kinds_in_which_it_lies():
    allowed = AllowedIds(Pairs(), {"right": (2, 3)})
    assert allowed(1, torch.tensor([0, 5])).int().tolist() == [[0, 0, 1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1, 0]]
    assert allowed(0, torch.tensor([0, 3])).int().tolist() == [[1, 1, 1, 1, 0]]


def test_an_id_of_no_kind_may_become_any():
    assert ALLOWED(1, torch.tensor([8, 0])).int().tolist() == [[1] * 8 + [0], [1] * 4 + [0] * 5]


@pytest.mark.parametrize(
    ("ranges", "message"),
    [({"pitch": (0, 3)}, "'pitch'; the tokenizer has left, right"), ({"left": (4, 9)}, "4 to 9, where it has no id; it has 0 to 3")],
)
def test_ranges_without_ids_are_refused(ranges, message):
    with pytest.raises(ValueError, match=message):
        AllowedIds(Pairs(), ranges)
