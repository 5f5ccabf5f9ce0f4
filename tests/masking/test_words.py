"""Whole words and spans of them: as a loop over one item draws them, within the budget, a function of the item's seed alone."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.masking import GeometricSpanMasking, MaskReplaceKeep, WholeWordMasking
from multimodal.masking.noise import uniform
from multimodal.protocols import Tokens
from multimodal.tokenizers.text import TextEmbed

MASKINGS = [WholeWordMasking, GeometricSpanMasking]


def sequences(lengths: list[int], begins: list[bool] | None = None, marks: list[bool] | None = None) -> Tokens:
    tokens = Tokens.of_sequences(torch.arange(sum(lengths)), torch.tensor(lengths))
    return replace(tokens, begins=None if begins is None else torch.tensor(begins), marks=None if marks is None else torch.tensor(marks))


@st.composite
def texts(draw) -> tuple[Tokens, torch.Tensor]:
    """Items of words and marks, and their seeds."""
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=5))
    flags = [draw(st.lists(st.booleans(), min_size=sum(lengths), max_size=sum(lengths))) for _ in range(2)]
    marks = [x and y for x, y in zip(*flags, strict=True)]  # a quarter
    seed = draw(st.integers(0, 2**62))
    return sequences(lengths, flags[0], marks if draw(st.booleans()) else None), torch.arange(len(lengths)) * 7919 + seed


def words_by_hand(length: int, begins: list[bool], marks: list[bool]) -> list[list[int]]:
    """The words of one item as lists of positions; a mark is an empty one."""
    words: list[list[int]] = []
    for place in range(length):
        if place == 0 or begins[place] or marks[place] or marks[place - 1]:
            words.append([])
        words[-1] += [] if marks[place] else [place]
    return words


def item(tokens: Tokens, number: int) -> tuple[list[list[int]], int, list[int]]:
    """Return the words of one item, how many tokens may be hidden, and the place of each word's first token, marks included."""
    start, length = int(tokens.lengths[:number].sum()), int(tokens.lengths[number])
    begins = [True] * length if tokens.begins is None else tokens.begins[start : start + length].tolist()
    marks = [False] * length if tokens.marks is None else tokens.marks[start : start + length].tolist()
    words = words_by_hand(length, begins, marks)
    firsts = [p for p in range(length) if p == 0 or begins[p] or marks[p] or marks[p - 1]]
    return words, sum(map(len, words)), firsts


def budget_by_hand(free: int, ratio: float) -> int:
    return min(free, max(1, round(torch.tensor(free * ratio).round().item())))


def whole_words_by_hand(tokens: Tokens, number: int, seed: int, ratio: float) -> list[int]:
    words, free, firsts = item(tokens, number)
    noise = uniform(torch.full((len(words),), seed), torch.tensor(firsts)).tolist()
    left, hidden = budget_by_hand(free, ratio), []
    for index in sorted(range(len(words)), key=noise.__getitem__):
        if len(words[index]) <= left:
            hidden += words[index]
            left -= len(words[index])
    return sorted(hidden)


def spans_by_hand(tokens: Tokens, number: int, seed: int, masking: GeometricSpanMasking) -> list[int]:
    words, free, firsts = item(tokens, number)
    noise = uniform(torch.full((int(tokens.lengths[number]),), seed), torch.arange(int(tokens.lengths[number]))).tolist()
    drawn = uniform(torch.full((len(words),), seed), torch.tensor(firsts), 5).tolist()
    left, hidden = budget_by_hand(free, masking.mask_ratio), set()
    owner = {place: index for index, word in enumerate(words) for place in word}
    for place in sorted(owner, key=noise.__getitem__):
        if place in hidden or len(words[owner[place]]) > left:
            continue
        length, index = length_by_hand(drawn[owner[place]], masking), owner[place]
        for word in words[index : index + length]:
            new = [x for x in word if x not in hidden]
            if len(new) > left:
                break
            hidden |= set(new)
            left -= len(new)
    return sorted(hidden)


def length_by_hand(noise: float, masking: GeometricSpanMasking) -> int:
    """Look the length up in the distribution that SpanBERT draws from."""
    chances = [masking.stop * (1 - masking.stop) ** k for k in range(masking.max_words)]
    total, below = sum(chances), 0.0
    for length, chance in enumerate(chances, start=1):
        below += chance / total
        if noise < below:
            return length
    return masking.max_words


@settings(deadline=None, max_examples=50)
@given(texts(), st.floats(0.05, 0.95))
def test_whole_words_are_those_of_a_loop_over_one_item(given_, ratio):
    tokens, seed = given_
    masked = WholeWordMasking(ratio)(tokens, seed)
    for number, own in enumerate(masked.split(tokens.lengths.tolist())):
        assert own.nonzero()[:, 0].tolist() == whole_words_by_hand(tokens, number, int(seed[number]), ratio)


@settings(deadline=None, max_examples=50)
@given(texts(), st.floats(0.05, 0.95), st.floats(0.1, 0.9), st.integers(1, 12))
def test_spans_are_those_of_a_loop_over_one_item(given_, ratio, stop, max_words):
    tokens, seed = given_
    masking = GeometricSpanMasking(ratio, stop, max_words)
    for own_tokens in (tokens, replace(tokens, begins=None)):
        masked = masking(own_tokens, seed)
        for number, own in enumerate(masked.split(tokens.lengths.tolist())):
            assert own.nonzero()[:, 0].tolist() == spans_by_hand(own_tokens, number, int(seed[number]), masking)


@settings(deadline=None, max_examples=60)
@given(texts(), st.floats(0.05, 0.95))
@pytest.mark.parametrize("masking", MASKINGS)
def test_words_are_hidden_whole_within_the_budget_and_marks_never(masking, given_, ratio):
    tokens, seed = given_
    masked = masking(ratio)(tokens, seed)
    if tokens.marks is not None:
        assert not (masked & tokens.marks).any()
    for number, own in enumerate(masked.split(tokens.lengths.tolist())):
        words, free, _ = item(tokens, number)
        assert int(own.sum()) <= budget_by_hand(free, ratio)
        assert all(own[word].all() or not own[word].any() for word in words if word)


@settings(deadline=None, max_examples=30)
@given(texts(), st.integers(0, 4))
@pytest.mark.parametrize("masking", MASKINGS)
def test_the_mask_of_an_item_does_not_depend_on_the_batch(masking, given_, number):
    tokens, seed = given_
    number %= len(tokens.lengths)
    alone = tokens.select(tokens.item == number)
    own = replace(alone, lengths=tokens.lengths[number : number + 1])
    assert torch.equal(masking(0.4)(tokens, seed)[tokens.item == number], masking(0.4)(own, seed[number : number + 1]))


def test_words_of_one_token_are_hidden_to_the_exact_number():
    tokens = sequences([100] * 50, [True] * 5000)
    for masking in MASKINGS:
        assert (masking(0.15)(tokens, torch.arange(50)).view(50, 100).sum(1) == 15).all()


def test_every_word_is_hidden_equally_often():
    begins = [True, False] * 10
    tokens = sequences([20] * 4000, begins * 4000)
    masked = WholeWordMasking(0.25)(tokens, torch.arange(4000)).view(4000, 20)
    assert (masked.sum(1) == 4).all() and (masked.float().mean(0) - 0.2).abs().max() < 0.03  # 5 of 20 are no whole number of words


def test_span_lengths_have_the_distribution_of_spanbert():
    tokens = sequences([200] * 20_000)
    masked = GeometricSpanMasking(0.051)(tokens, torch.arange(20_000)).view(-1, 200)  # 10 tokens: most of the first span is there
    noise = uniform(torch.arange(20_000)[:, None].expand(-1, 200), torch.arange(200).expand(20_000, -1))
    first = noise.argmin(1)
    inner = first < 189
    run = torch.stack([masked[torch.arange(20_000), (first + k).clamp(max=199)] for k in range(10)], 1).cumprod(1).sum(1)[inner].float()
    chances = torch.tensor([0.2 * 0.8**k for k in range(10)])
    expected = (chances / chances.sum() * torch.arange(1, 11)).sum()
    assert expected.item() == pytest.approx(3.797, abs=1e-3)  # SpanBERT: 3.8
    assert run.mean().item() == pytest.approx(expected.item(), abs=0.25)  # a later span may follow at once
    assert (run >= 1).all()


def test_an_item_of_longer_words_alone_hides_nothing():
    tokens = sequences([10, 10], [True] + [False] * 9 + [True] * 10)
    assert WholeWordMasking(0.2)(tokens, torch.arange(2)).view(2, 10).sum(1).tolist() == [0, 2]


def test_tokens_that_are_no_parts_of_words_are_refused():
    with pytest.raises(ValueError, match="where words begin, which this tokenizer does not tell: take RandomMasking"):
        WholeWordMasking()(sequences([4]), torch.arange(1))


@pytest.mark.parametrize("masking", MASKINGS)
def test_no_tokens_hide_nothing(masking):
    tokens = Tokens(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1), begins=torch.zeros(0, dtype=torch.bool))
    assert len(masking()(tokens, torch.zeros(0, dtype=torch.int64))) == 0
    assert len(masking()(replace(tokens, lengths=torch.tensor([0, 0])), torch.arange(2))) == 0


@pytest.mark.parametrize(
    ("masking", "settings"),
    [
        (WholeWordMasking, {"mask_ratio": 0.0}),
        (GeometricSpanMasking, {"mask_ratio": 1.0}),
        (GeometricSpanMasking, {"stop": 0.0}),
        (GeometricSpanMasking, {"stop": 1.0}),
        (GeometricSpanMasking, {"max_words": 0}),
    ],
)
def test_settings_are_checked(masking, settings):
    with pytest.raises(ValueError, match="must be"):
        masking(**settings)


@pytest.mark.parametrize("masking", MASKINGS)
def test_hidden_words_are_shown_as_bert_shows_them(masking):
    """Of hidden tokens 80 % the mask, 10 % any id of the vocabulary, 10 % themselves; of others all themselves."""
    embed, count = TextEmbed(4, 1000, mask_id=999), 400_000
    begins = torch.arange(count) % 3 != 1  # words of two tokens and of one
    tokens = replace(embed.tokens(torch.full((count,), 5), torch.full((2000,), 200)), begins=begins)
    seed = torch.arange(2000)
    masked = masking(0.15)(tokens, seed)
    shown, as_mask, _ = MaskReplaceKeep(0.8, 0.1)(embed, tokens, masked, seed)
    total, other = masked.sum(), shown.inputs != 5
    assert total.item() / count == pytest.approx(0.15, abs=0.002)
    assert not (as_mask & ~masked).any() and not (other & ~masked).any()
    assert (as_mask.sum() / total).item() == pytest.approx(0.8, abs=0.005)
    assert ((other & ~as_mask).sum() / total).item() == pytest.approx(0.1 * 999 / 1000, abs=0.005)
    drawn = shown.inputs[other & ~as_mask].double()
    assert drawn.mean().item() == pytest.approx(499.5, abs=15) and drawn.min() < 5 and drawn.max() > 995
